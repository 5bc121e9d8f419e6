package machine

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// In a mount namespace of a user namespace, the kernel mounts a proc or a sysfs only if there is one already,
// with nothing mounted over parts of it (mount_too_revealing() in fs/namespace.c). systemd-nspawn covers parts
// of both, so containers in a machine could mount neither. A machine therefore has one of each beneath its
// root: in a directory on which the machine's root is mounted. No path leads there, and in a user namespace
// the root cannot be unmounted. The kernel counts them all the same, also after pivot_root(2), which replaces
// the root: they are in the mount namespace of each container.

// mountBeneath makes a file system with a proc and a sysfs, and mounts the root of this thread on it. The
// thread must be in a mount namespace of its own. systemd-nspawn later replaces that root with the machine's.
func mountBeneath() error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("copy the host's mounts: %w", err)
	}
	defer unix.Close(tree)
	beneath, err := detachedMount("tmpfs", "size=64k", "nr_inodes=3", "mode=0700")
	if err != nil {
		return err
	}
	defer unix.Close(beneath)
	if err := unix.MoveMount(beneath, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount a tmpfs on /: %w", err)
	}
	if err := fillBeneath(beneath); err != nil {
		return err
	}
	// The old root is unmounted. This fails on some hosts, such as containers. There it stays below
	// everything else, as it does with systemd-nspawn itself.
	if err := unix.Fchdir(beneath); err != nil {
		return err
	}
	switch err := unix.PivotRoot(".", "."); { // then the old root is mounted over the new one
	case err == nil:
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the old root: %w", err)
		}
	case !errors.Is(err, unix.EINVAL):
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.MoveMount(tree, "", beneath, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the copy of the host's mounts: %w", err)
	}
	if err := unix.Fchdir(tree); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// fillBeneath mounts a proc and a sysfs in a directory. They show no process of the host and no network, in case
// that a process could reach them.
func fillBeneath(beneath int) error {
	proc, err := detachedMount("proc", "hidepid=ptraceable")
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	sys, err := sysfsWithoutNetwork()
	if err != nil {
		return err
	}
	defer unix.Close(sys)
	for name, mount := range map[string]int{"proc": proc, "sys": sys} {
		if err := unix.Mkdirat(beneath, name, 0o700); err != nil {
			return fmt.Errorf("make a mount point for %s: %w", name, err)
		}
		if err := unix.MoveMount(mount, "", beneath, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s: %w", name, err)
		}
	}
	return nil
}

// sysfsWithoutNetwork makes a detached sysfs. A sysfs belongs to a network namespace, and this one to an empty
// network namespace.
func sysfsWithoutNetwork() (mount int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // this thread gets another network, and ends with this goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("unshare the network: %w", err)
			return
		}
		mount, err = detachedMount("sysfs")
	}()
	<-done
	return mount, err
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
