package storage

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// RangeSize is the number of user ids, and of group ids, of one machine.
	RangeSize = 65536
	// hostRoot is the id under which files of the host's root appear on disk
	// behind an idmapped mount. systemd-nspawn makes mount points as the
	// host's root and then gives them to the machine's; without a mapping
	// for it the kernel refuses with EOVERFLOW. The number is systemd's own
	// UID_MAPPED_ROOT.
	hostRoot = 1<<31 - 2
)

// Bind mounts the tree from on the directory to. With owner > 0 the mount is
// idmapped: what belongs to root on disk belongs to owner in it, and so on for
// the ids up to RangeSize. attributes are mount_setattr(2)'s MOUNT_ATTR_*.
func Bind(from, to string, owner int, attributes uint64) error {
	mount, err := detached(from, owner, attributes)
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount %s to %s: %w", from, to, err)
	}
	return nil
}

// CheckIdmap says whether the tree at path can be mounted idmapped, by doing it:
// nobody sees the mount, and nothing is left of it.
func CheckIdmap(path string) error {
	mount, err := detached(path, RangeSize, 0)
	if err != nil {
		return err
	}
	return mount.Close()
}

// detached makes the mount of Bind. As long as it lies nowhere, its end is Close.
func detached(from string, owner int, attributes uint64) (_ *os.File, err error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", from, err)
	}
	mount := os.NewFile(uintptr(fd), from)
	defer func() {
		if err != nil {
			mount.Close()
		}
	}()
	attr := unix.MountAttr{Attr_set: attributes}
	if owner > 0 {
		namespace, err := userNamespace(owner)
		if err != nil {
			return nil, fmt.Errorf("user namespace for ids from %d: %w", owner, err)
		}
		defer namespace.Close()
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(namespace.Fd())
	}
	if attr.Attr_set != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			if owner > 0 && (err == unix.EINVAL || err == unix.EOPNOTSUPP) {
				return nil, fmt.Errorf("idmapped mount of %s: %w: this file system or kernel offers none (ext4, xfs, btrfs: Linux 5.15; overlay upon them: 5.19)", from, err)
			}
			return nil, fmt.Errorf("mount_setattr %s: %w", from, err)
		}
	}
	return mount, nil
}

// userNamespace returns a user namespace that maps ids from 0 to owner, and
// hostRoot to the host's root. A namespace needs a process to be born in; this
// one is stopped by ptrace(2) before its first instruction and killed at once.
func userNamespace(owner int) (*os.File, error) {
	runtime.LockOSThread() // ptrace is a matter between threads
	defer runtime.UnlockOSThread()
	mappings := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: owner, Size: RangeSize},
		{ContainerID: hostRoot, HostID: 0, Size: 1},
	}
	process, err := os.StartProcess("/proc/self/exe", []string{"user-namespace"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: mappings,
			GidMappings: mappings,
			Ptrace:      true,
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
