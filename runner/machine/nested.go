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

// In a user namespace, the kernel allows a mount of proc or sysfs only if one is visible already, with nothing
// mounted over parts of it (mount_too_revealing() in fs/namespace.c). systemd-nspawn covers parts of both. So
// containers in a machine, which have user namespaces, could mount neither. A machine therefore has one of
// each in a directory that no process in it can reach, which is enough for the kernel.

// nestedPlace is that directory, in /dev, which is a tmpfs of systemd-nspawn.
const nestedPlace = ".nspawn-runner"

// allowNested mounts what containers in a machine need. leader is the machine's first process.
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
		// The thread is never unlocked, so it ends with this goroutine: its children are born in
		// the namespace.
		runtime.LockOSThread()
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWPID); err == nil {
			output, err = cmd.CombinedOutput()
		}
	}()
	<-done
	return output, err
}

// Nest is the hidden command that mounts what containers need in a mount namespace, given by its path. owner
// is the user id of the machine's root. It must run as a child in the machine's process namespace. It leaves
// its thread in other namespaces.
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
	// A sysfs belongs to a network namespace. The sysfs of the machine's own network stays
	// read-only, so this one belongs to an empty network namespace.
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the network: %w", err)
	}
	sys, err := detachedMount("sysfs")
	if err != nil {
		return err
	}
	defer unix.Close(sys)
	cover, err := detachedMount("tmpfs", "size=0", "nr_inodes=1", "mode=0555") // df does not show a file system without a size
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

// attachForNspawn mounts a tmpfs on /run/systemd/nspawn of the machine. A systemd-nspawn in the machine mounts
// parts of this directory in its containers, with other flags. It could not do this with the machine's /run,
// which was mounted outside the machine's user namespace: root in the machine cannot clear its flags
// (mount_namespaces(7)).
func attachForNspawn(mount, owner int) error {
	// The machine's systemd may make /run/systemd at this moment, and must be able to write there.
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

// attachNested mounts proc and sysfs, and an empty directory over both, so that no process can reach them. It
// follows no link: programs of the image run by now, and a link through /proc could lead to the mount
// namespace of other threads of this program, which is the host's.
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

// moveTo attaches a detached mount to a directory.
func moveTo(at *os.File, mount int) error {
	if err := unix.MoveMount(mount, "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", at.Name(), err)
	}
	return nil
}

// detachedMount makes a file system that is not attached to any directory.
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
