package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/systemd"
)

// The kernel lets nobody in a user namespace mount a proc or a sysfs who does not see
// one already of which nothing is covered (mount_too_revealing() in fs/namespace.c).
// systemd-nspawn covers parts of both, and so containers in a machine, which have user
// namespaces, could have neither. A machine therefore has one of each, at a place where
// nobody comes to; the kernel does not ask for that.

// nestedPlace is that place, below a tmpfs of systemd-nspawn's.
const nestedPlace = "/dev/.nspawn-runner"

// allowNested gives a machine, whose first process is there, what containers in it need.
func (s Store) allowNested(ctx context.Context, leader systemd.Process, record Record) error {
	if record.NoNesting {
		return nil
	}
	var files []*os.File
	for _, kind := range []string{"pid", "mnt"} {
		namespace, err := leader.Namespace(kind)
		if err != nil {
			return err
		}
		defer namespace.Close()
		files = append(files, namespace)
	}
	// A proc shows the processes of whose child mounts it. This program stays the host's
	// root: it is nobody whom the machine could trace.
	cmd := exec.CommandContext(ctx, "nsenter", "--pid=/proc/self/fd/3", "--", s.Program, "nest", "/proc/self/fd/4")
	cmd.ExtraFiles = files
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second // the child may wait for the kernel's lock of all mounts
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf(`a proc and a sysfs for containers: %w: %s; "nesting: false" does without`, err, Printable(string(out)))
	}
	return nil
}

// Nest is the command that mounts them in the mount namespace whose path is given. It
// must be a child in the machine's namespace of processes. It leaves this thread in other
// namespaces.
func Nest(namespace string) error {
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
	if err := unix.Setns(int(machine.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter its mounts: %w", err)
	}
	return attachNested(proc, sys, cover)
}

// attachNested mounts them, and an empty directory on both: what is below it nobody can
// name.
func attachNested(proc, sys, cover int) error {
	for _, path := range []string{nestedPlace, nestedPlace + "/proc", nestedPlace + "/sys"} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	}
	for _, mount := range []struct {
		fd int
		at string
	}{{proc, nestedPlace + "/proc"}, {sys, nestedPlace + "/sys"}, {cover, nestedPlace}} {
		if err := unix.MoveMount(mount.fd, "", unix.AT_FDCWD, mount.at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount to %s: %w", mount.at, err)
		}
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
