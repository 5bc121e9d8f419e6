package storage

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// RangeSize is how many user ids, and group ids, a machine has: 65536 for its own users, and 65536
	// for the containers of each user, from 100000 on (useradd(8)). Fourteen users fit.
	RangeSize = 1 << 20
	// hostRoot is the id, on the disk, of files that the host's root makes through an idmapped mount.
	// systemd-nspawn makes mount points as the host's root, and then gives them to the machine's root.
	// Without a mapping, the kernel refuses this with EOVERFLOW. The number is UID_MAPPED_ROOT of
	// systemd.
	hostRoot = 1<<31 - 2
)

// View describes how a mount shows its files.
type View struct {
	// Owner is the first id of an idmapped mount: files of root on the disk belong to Owner, and so on
	// for RangeSize ids. 0 stands for a mount that is not idmapped.
	Owner int
	// Set and Clear are MOUNT_ATTR_* of mount_setattr(2).
	Set, Clear uint64
	// Below also shows the mounts that are below now. Later mounts are not shown.
	Below bool
}

// Bind mounts an open file or directory on the path to.
func Bind(from *os.File, to string, view View) error {
	mount, err := detached(from, view)
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount %s to %s: %w", from.Name(), to, err)
	}
	return nil
}

// bindTree mounts a tree for a machine's root. It clears the restrictions of the host's mount, such as nosuid on
// /var, because machines need setuid programs.
func bindTree(from, to string, owner int) error {
	tree, err := os.OpenFile(from, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer tree.Close()
	return Bind(tree, to, View{Owner: owner, Clear: restrictions})
}

// restrictions are attributes that a mount of the host may have.
const restrictions = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// CheckIdmap returns an error if the tree at path cannot be mounted idmapped. It makes such a mount, which no
// process sees, and removes it.
func CheckIdmap(path string) error {
	tree, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer tree.Close()
	mount, err := detached(tree, View{Owner: RangeSize})
	if err != nil {
		return err
	}
	return mount.Close()
}

// detached makes a mount that is not attached to any directory. Until it is attached, Close unmounts it.
func detached(from *os.File, view View) (_ *os.File, err error) {
	depth := uint(0)
	if view.Below {
		depth = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(from.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|depth)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", from.Name(), err)
	}
	mount := os.NewFile(uintptr(fd), from.Name())
	defer func() {
		if err != nil {
			mount.Close()
		}
	}()
	// The mount is private, because later mounts of the host would appear in it without these attributes.
	attr := unix.MountAttr{Attr_set: view.Set, Attr_clr: view.Clear, Propagation: unix.MS_PRIVATE}
	if view.Owner > 0 {
		namespace, err := userNamespace(view.Owner)
		if err != nil {
			return nil, fmt.Errorf("user namespace for ids from %d: %w", view.Owner, err)
		}
		defer namespace.Close()
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(namespace.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|depth, &attr); err != nil {
		if view.Owner > 0 && (err == unix.EINVAL || err == unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("idmapped mount of %s: %w: this file system or kernel offers none (ext4, xfs, btrfs: Linux 5.15; overlay upon them: 5.19)", from.Name(), err)
		}
		return nil, fmt.Errorf("mount_setattr %s: %w", from.Name(), err)
	}
	return mount, nil
}

// userNamespace returns a user namespace that maps the ids from 0 on to those from owner on, and hostRoot to the
// host's root. A namespace begins with a process: here it is sleep(1), which is killed at once. A traced process
// would not execute anything, but with kernel.yama.ptrace_scope=3 no process can trace.
func userNamespace(owner int) (*os.File, error) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // for Pdeathsig, this thread is the parent
	defer runtime.UnlockOSThread()
	mappings := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: owner, Size: RangeSize},
		{ContainerID: hostRoot, HostID: 0, Size: 1},
	}
	process, err := os.StartProcess(sleep, []string{"sleep", "infinity"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: mappings,
			GidMappings: mappings,
			Pdeathsig:   unix.SIGKILL,
		},
	})
	if err != nil {
		return nil, err
	}
	defer process.Wait()
	defer process.Kill()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", process.Pid))
}
