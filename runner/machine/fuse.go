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

// A process that waits for the answer of a FUSE file system cannot be killed after its request was read. If
// the process itself has the connection of that file system open, it waits for ever, because only its own
// death would end the connection: "simple deadlock" in the kernel's Documentation/filesystems/fuse/fuse.rst.
// The cure is to abort the connection.

// abortPause is the time between two aborts while a machine is stopped: a process that still runs may make
// another connection.
const abortPause = 100 * time.Millisecond

// withoutFUSE calls stop, which stops a machine, and aborts the machine's FUSE connections before, meanwhile
// and after. Otherwise processes that wait for one could not be killed. The host's service manager may wait
// for one too: for the status of a service, it reads the command lines of the machine's processes (seen). At
// the end no connection is left, also if a process of another machine received one.
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

// abortFUSE aborts the FUSE connections that a machine made, with all their requests. Only the machine can be
// using them. Without a record it is not known which they are. If an abort fails, a process stays, and the
// stop reports that.
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

// fuseControl opens fusectl. It has a directory for each connection of the kernel, whose name is the number
// of the file system's device. If the host has not mounted fusectl, fuseControl mounts it where no other
// process sees it. Such a mount waits for every process that changes mounts on this host.
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
	// The descriptor of the mount cannot be read: it is like one of O_PATH.
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "fusectl"), nil
}

// ownedBy says whether a connection belongs to a user id of a machine. A process that mounts a FUSE file
// system names the owner of the connection, and can name only ids of its user namespace.
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

// fuseMounts returns the devices of the FUSE file systems that the processes of a control group see and the
// host does not. It is for privileged machines. Their connections belong to the host's root, like those of
// the host, some of which the machine sees in its binds.
func fuseMounts(group string) map[string]bool {
	found, seen := map[string]bool{}, map[string]bool{}
	for _, pid := range processes(group) {
		// If some threads of a process have ended, another one still has its namespace.
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

// addFUSE marks the FUSE file systems in a thread's mount namespace as mounted or not.
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

// isFUSE matches the types of FUSE file systems: fuse, fuse.sshfs, fuseblk.
var isFUSE = regexp.MustCompile(`^fuse(blk)?(\.|$)`)

// fuseDevice returns the name in fusectl of the file system in a line of proc_pid_mountinfo(5), if that is a
// FUSE file system.
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
