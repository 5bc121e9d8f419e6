package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls of btrfs and their arguments: linux/btrfs.h. Direct calls need no btrfs-progs and no fork.
const (
	ioctlSubvolCreate   = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	ioctlSnapDestroy    = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	ioctlSnapCreateV2   = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	ioctlSubvolSetFlags = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	ioctlFSInfo         = 0x8400941f // BTRFS_IOC_FS_INFO

	subvolumeInode = 256 // BTRFS_FIRST_FREE_OBJECTID: the inode of each subvolume's root directory
)

type fsInfo struct {
	maxDevice, devices uint64
	id                 [16]byte
	_                  [1024 - 32]byte
}

type volArgs struct {
	fd   int64
	name [4088]byte
}

type volArgsV2 struct {
	fd, transid, flags uint64
	_                  [4]uint64
	name               [4040]byte
}

// IsBtrfs says whether path is on btrfs.
func IsBtrfs(path string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return false, fmt.Errorf("statfs %s: %w", path, err)
	}
	return fs.Type == unix.BTRFS_SUPER_MAGIC, nil
}

// IsSubvolume says whether path is a btrfs subvolume. It follows links.
func IsSubvolume(path string) (bool, error) {
	on, err := IsBtrfs(path)
	if err != nil || !on {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == subvolumeInode, nil
}

// sameBtrfs says whether two paths are on one btrfs. statfs(2) does not say it, because each subvolume has a
// number of its own there.
func sameBtrfs(a, b string) bool {
	var one, other fsInfo
	return ioctlIn(a, ioctlFSInfo, unsafe.Pointer(&one)) == nil &&
		ioctlIn(b, ioctlFSInfo, unsafe.Pointer(&other)) == nil && one.id == other.id
}

// Create makes an empty directory. On btrfs it is a subvolume.
func Create(path string) error {
	on, err := IsBtrfs(filepath.Dir(path))
	if err != nil {
		return err
	}
	if !on {
		return os.Mkdir(path, 0o755)
	}
	var args volArgs
	copy(args.name[:], filepath.Base(path))
	if err := ioctlIn(filepath.Dir(path), ioctlSubvolCreate, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("create subvolume %s: %w", path, err)
	}
	return nil
}

// snapshotOf makes a writable snapshot of the subvolume from.
func snapshotOf(from, to string) error {
	source, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", from, err)
	}
	defer unix.Close(source)
	args := volArgsV2{fd: uint64(source)}
	copy(args.name[:], filepath.Base(to))
	if err := ioctlIn(filepath.Dir(to), ioctlSnapCreateV2, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("snapshot %s to %s: %w", from, to, err)
	}
	return nil
}

// destroyAt deletes a writable subvolume. The kernel refuses to delete one that has other subvolumes in it.
func destroyAt(dir *os.File, name string) error {
	var args volArgs
	copy(args.name[:], name)
	if err := ioctl(dir, ioctlSnapDestroy, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("delete subvolume %q: %w", name, err)
	}
	return nil
}

// makeWritable clears the read-only flag of a subvolume.
func makeWritable(sub *os.File) error {
	var flags uint64
	if err := ioctl(sub, ioctlSubvolSetFlags, unsafe.Pointer(&flags)); err != nil {
		return fmt.Errorf("make subvolume %q writable: %w", sub.Name(), err)
	}
	return nil
}

// ioctlIn calls an ioctl on the directory dir.
func ioctlIn(dir string, request uintptr, arg unsafe.Pointer) error {
	file, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return err
	}
	defer file.Close()
	return ioctl(file, request, arg)
}

func ioctl(file *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
