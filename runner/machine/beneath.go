package machine

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel mounts a proc or a sysfs in a mount namespace of a user namespace only if there is
// one already of which nothing is covered (mount_too_revealing() in fs/namespace.c).
// systemd-nspawn covers parts of both, so containers in a machine could have neither. A machine
// therefore has one of each beneath its root: in a directory that the machine's root is mounted
// on. No path leads there, and in a user namespace nobody can take a root away. The kernel
// counts them all the same, also after pivot_root(2), which puts another root in the place of
// this one: they are in the mount namespace of each container.

// mountBeneath makes a file system that holds a proc and a sysfs, and puts on it what this
// thread, in a mount namespace of its own, has as its root. systemd-nspawn then puts the
// machine's root there instead.
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
	// What was the root goes. Some hosts, such as containers, cannot do without it; there it
	// stays below all of this, as it does with systemd-nspawn itself.
	if err := unix.Fchdir(beneath); err != nil {
		return err
	}
	switch err := unix.PivotRoot(".", "."); { // the old root lies on the new one
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

// fillBeneath mounts a proc and a sysfs in a directory. Should anybody see them, they would show
// no process of the host's and no network.
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

// sysfsWithoutNetwork makes a sysfs that is mounted nowhere yet. A sysfs is that of a network,
// and this one is that of a network where there is nothing.
func sysfsWithoutNetwork() (mount int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // this thread has another network, and ends with this goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("unshare the network: %w", err)
			return
		}
		mount, err = detachedMount("sysfs")
	}()
	<-done
	return mount, err
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
