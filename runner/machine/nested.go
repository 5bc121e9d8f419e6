package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/storage"
)

// The kernel lets nobody in a user namespace mount a proc or a sysfs who does not see
// one already of which nothing is covered (mount_too_revealing() in fs/namespace.c).
// systemd-nspawn covers parts of both, and so containers in a machine, which have user
// namespaces, could have neither. A machine therefore has one of each, at a place where
// nobody comes to; the kernel does not ask for that.

// nestedPlace is that place, in /dev, a tmpfs of systemd-nspawn's.
const nestedPlace = ".nspawn-runner"

// allowNested gives a machine, whose first process is there, what containers in it need.
func (s Store) allowNested(ctx context.Context, leader host.Process, record Record) error {
	if record.NoNesting {
		return nil
	}
	processes, err := leader.Namespace("pid")
	if err != nil {
		return err
	}
	defer processes.Close()
	mounts, err := leader.Namespace("mnt")
	if err != nil {
		return err
	}
	defer mounts.Close()
	// A proc shows the process namespace of the process that mounts it. So a child mounts it,
	// in the machine's namespace of processes. The child stays the host's root, so the machine
	// cannot trace it.
	cmd := exec.CommandContext(ctx, s.Program, "nest", "/proc/self/fd/3", strconv.Itoa(record.RootUID))
	cmd.ExtraFiles = []*os.File{mounts}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second // the child may wait for the kernel's lock of all mounts
	if out, err := outputAmong(processes, cmd); err != nil {
		return fmt.Errorf(`mount a proc and a sysfs for containers: %w: %s; "nesting: false" turns this off`, err, printable.Line(string(out)))
	}
	return nil
}

// outputAmong runs a command as a child in a namespace of processes.
func outputAmong(namespace *os.File, cmd *exec.Cmd) (output []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// This goroutine's thread is never unlocked, so that it ends with it: its children
		// are born there.
		runtime.LockOSThread()
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWPID); err == nil {
			output, err = cmd.CombinedOutput()
		}
	}()
	<-done
	return output, err
}

// Nest is the command that mounts them in the mount namespace whose path is given, for a
// machine whose root has a user id. It must be a child in the machine's namespace of
// processes. It leaves this thread in other namespaces.
func Nest(namespace string, owner int) error {
	runtime.LockOSThread()
	machine, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer machine.Close()
	proc, err := detachedMount("proc")
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	// A sysfs is its network's, and that of the machine's own network is read-only for
	// good; so it is that of one where there is nothing.
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the network: %w", err)
	}
	sys, err := detachedMount("sysfs")
	if err != nil {
		return err
	}
	defer unix.Close(sys)
	cover, err := detachedMount("tmpfs", "size=0", "nr_inodes=1", "mode=0555") // of no size, so that df leaves it out
	if err != nil {
		return err
	}
	defer unix.Close(cover)
	runtimeDir, err := detachedMount("tmpfs", "size=1m", "nr_inodes=1k", "mode=0755", fmt.Sprintf("uid=%d", owner), fmt.Sprintf("gid=%d", owner))
	if err != nil {
		return err
	}
	defer unix.Close(runtimeDir)
	if err := unix.Setns(int(machine.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter its mounts: %w", err)
	}
	if err := attachNested(proc, sys, cover); err != nil {
		return err
	}
	return attachForNspawn(runtimeDir, owner)
}

// attachForNspawn mounts what is /run/systemd/nspawn in the machine: systemd-nspawn in there
// mounts parts of that directory in its containers, with flags of its own. With the machine's
// /run it could not, because that was mounted outside the machine's user namespace, whose root
// may take none of its flags away (mount_namespaces(7)).
func attachForNspawn(mount, owner int) error {
	// The machine's systemd, which makes /run/systemd at this moment, must be able to write there.
	if err := unix.Setfsgid(owner); err != nil {
		return err
	}
	if err := unix.Setfsuid(owner); err != nil {
		return err
	}
	at, err := storage.OpenIn("/", "run", unix.O_PATH|unix.O_DIRECTORY)
	for _, name := range []string{"systemd", "nspawn"} {
		if err != nil {
			return err
		}
		defer at.Close()
		at, err = makeIn(at, name)
	}
	if err != nil {
		return err
	}
	defer at.Close()
	return moveTo(at, mount)
}

// attachNested mounts them, and an empty directory on both: what is below it nobody can
// name. It follows no link: the image's first programs run by now, and one through /proc
// leads to what other threads of this program see, the host.
func attachNested(proc, sys, cover int) error {
	dev, err := storage.OpenIn("/", "dev", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dev.Close()
	place, err := makeIn(dev, nestedPlace)
	if err != nil {
		return err
	}
	defer place.Close()
	for name, mount := range map[string]int{"proc": proc, "sys": sys} {
		at, err := makeIn(place, name)
		if err != nil {
			return err
		}
		defer at.Close()
		if err := moveTo(at, mount); err != nil {
			return err
		}
	}
	return moveTo(place, cover)
}

// moveTo mounts on a directory what is mounted nowhere yet.
func moveTo(at *os.File, mount int) error {
	if err := unix.MoveMount(mount, "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", at.Name(), err)
	}
	return nil
}

// detachedMount makes a file system that is mounted nowhere yet.
func detachedMount(kind string, options ...string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		if err := unix.FsconfigSetString(fs, name, value); err != nil {
			return -1, fmt.Errorf("%s: %s: %w", kind, option, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make a %s: %w", kind, err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
