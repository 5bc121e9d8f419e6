package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"nspawn-runner/runner/host"

	"golang.org/x/sys/unix"
)

// A process that waits for the answer of a FUSE file system cannot be killed, once its
// request was read. When it has that file system's connection open itself, so that its
// death would end the connection, it waits for ever: "simple deadlock" in the kernel's
// Documentation/filesystems/fuse/fuse.rst, which names the cure, to abort the connection.

// abortPause is how often connections are aborted while a machine is stopped: a process
// that is not dead yet may make another.
const abortPause = 100 * time.Millisecond

// withoutFUSE does what stops a machine, without whose FUSE file systems its processes can
// be killed. Neither can others be that wait for one, which first of all is the host's
// service manager, if somebody has asked for the status of the machine's service: it
// reads the command lines of its processes (seen). At the end no connection is left,
// also none that another machine was handed.
func (r Record) withoutFUSE(stop func() error) error {
	if r.Boot != host.BootID() {
		return stop()
	}
	r.abortFUSE()
	over := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		pause := time.NewTicker(abortPause)
		defer pause.Stop()
		for {
			select {
			case <-pause.C:
				r.abortFUSE()
			case <-over:
				return
			}
		}
	})
	err := stop()
	close(over)
	wait.Wait()
	r.abortFUSE()
	return err
}

// abortFUSE aborts the FUSE connections that a machine made, with all requests that
// wait. Nobody but the machine can be using them. Of a machine without a record nobody
// knows which they are. What cannot be aborted shows as a process that stays.
func (r Record) abortFUSE() {
	if r.RootUID == 0 && (!r.Privileged || r.Cgroup == "") || !exists("/sys/fs/fuse") {
		return
	}
	control, err := fuseControl()
	if err != nil {
		return
	}
	defer control.Close()
	names, _ := control.Readdirnames(-1)
	var mounted map[string]bool
	if r.Privileged && len(names) > 0 {
		mounted = fuseMounts(r.Cgroup)
	}
	for _, name := range names {
		if mounted[name] || !r.Privileged && ownedBy(control, name, r.ids()) {
			abort(control, name)
		}
	}
}

// fusectlMagic is FUSE_CTL_SUPER_MAGIC of the kernel's fs/fuse/control.c.
const fusectlMagic = 0x65735543

// fuseControl opens fusectl: a directory for each connection of the host's kernel, named by
// the number of its file system's device. Where the host has not mounted it, it is a mount
// that nobody else sees; but who makes one waits for all who change mounts on this host.
func fuseControl() (*os.File, error) {
	mounted, err := os.Open("/sys/fs/fuse/connections")
	if err != nil {
		return nil, err
	}
	var kind unix.Statfs_t
	if err := unix.Fstatfs(int(mounted.Fd()), &kind); err == nil && kind.Type == fusectlMagic {
		return mounted, nil
	}
	mounted.Close()
	fs, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount)
	// Of the mount itself nothing can be read: it is open as by O_PATH.
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "fusectl"), nil
}

// ownedBy says whether a connection belongs to a user id of a machine. Who mounts a
// FUSE file system names its owner, but only one of those that his user namespace has.
func ownedBy(control *os.File, name string, ids idRange) bool {
	var st unix.Stat_t
	err := unix.Fstatat(int(control.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && ids.overlaps(idRange{int(st.Uid), 1})
}

func abort(control *os.File, name string) {
	fd, err := unix.Openat(int(control.Fd()), name+"/abort", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, _ = unix.Write(fd, []byte("1"))
		unix.Close(fd)
	}
}

// fuseMounts are the devices of the FUSE file systems that the processes of a control
// group have mounted and the host has not: what a privileged machine mounts belongs to
// the host's root, as the host's own do, of which the machine sees those in its binds.
func fuseMounts(group string) map[string]bool {
	found, seen := map[string]bool{}, map[string]bool{}
	for _, pid := range processes(group) {
		// Of a process that is half dead, one thread may still know.
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, thread := range threads {
			namespace, err := os.Readlink(filepath.Join(thread, "ns/mnt"))
			if err == nil && !seen[namespace] {
				seen[namespace] = true
				addFUSE(found, thread, true)
			}
		}
	}
	addFUSE(found, "/proc/1", false)
	return found
}

// addFUSE adds the FUSE file systems in a thread's mount namespace, or takes them out.
func addFUSE(devices map[string]bool, thread string, mounted bool) {
	text, err := os.ReadFile(filepath.Join(thread, "mountinfo"))
	if err != nil {
		return
	}
	for line := range bytes.Lines(text) {
		if device, is := fuseDevice(string(line)); is {
			devices[device] = mounted
		}
	}
}

// isFUSE matches its types: fuse, fuse.sshfs, fuseblk.
var isFUSE = regexp.MustCompile(`^fuse(blk)?(\.|$)`)

// fuseDevice is the name in fusectl of the file system in a line of proc_pid_mountinfo(5),
// if it is of FUSE.
func fuseDevice(line string) (string, bool) {
	mount, source, _ := strings.Cut(line, " - ")
	words, kind := strings.Fields(mount), strings.Fields(source)
	if len(words) < 3 || len(kind) == 0 || !isFUSE.MatchString(kind[0]) {
		return "", false
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(words[2], "%d:%d", &major, &minor); err != nil {
		return "", false
	}
	return strconv.FormatUint(uint64(major)<<20|uint64(minor), 10), true
}
