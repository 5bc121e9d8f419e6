// Package storage gives a machine its writable root and takes it away again.
//
// A chroot is never written to. A machine sees a copy-on-write view of it, made
// by one of three backends:
//
//   - btrfs: a snapshot of the chroot's subvolume;
//   - overlay: an overlay whose upper layer lies in the machine's directory;
//   - tmpfs: an overlay whose upper layer lies in memory.
//
// A backend works in two moments. Prepare runs in the driver and leaves on disk
// only what must outlive a process. Mount runs in the machine's own helper,
// inside a mount namespace of its own, just before systemd-nspawn is executed:
// what it mounts is invisible to the host and vanishes with the machine.
//
// Each machine owns a range of RangeSize user ids. The chroot on disk belongs to
// root, the machine's root is another user: an idmapped mount translates
// between the two (mount_setattr(2)), so nothing is ever chowned.
package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// Backend is a way to give machines a writable root.
type Backend interface {
	// Name is the backend's name in the configuration.
	Name() string
	// Traits are what others need to know of it.
	Traits() Traits
	// CanLimit says whether machines whose directories lie in machines can be
	// kept from writing more than so many bytes, or what to do about it.
	CanLimit(machines string) error
	// Prepare makes in dir, the machine's directory, what has to exist on disk
	// before the machine starts. owner is the host's user id of the machine's
	// root: 0 without a user namespace. limit is how many bytes the machine may
	// write, 0 for no limit. device is the block device that Mount needs, nil for
	// none: the kernel takes it away when it is closed and no machine has it
	// mounted.
	Prepare(dir, chroot string, owner int, limit uint64) (device *os.File, err error)
	// Mount mounts the machine's root on dir/mnt/root and returns that path.
	// It must run in a mount namespace of its own.
	Mount(dir, chroot string, owner int, disk Disk) (root string, err error)
	// Used is which share of its limit a machine has used, in percent, of bytes and of
	// files. dir is its directory as its mount namespace sees it.
	Used(dir string) (bytes, files uint64, err error)
}

// Traits are how machines' roots differ.
type Traits struct {
	// InMemory roots take memory, and not the disk of the machine's directory.
	InMemory bool
	// Reserved roots take all of their limit from the disk when the machine starts.
	Reserved bool
	// Volatile roots wait for no disk by themselves: what is written need not last.
	Volatile bool
}

// Disk is what a machine writes to.
type Disk struct {
	// Limit is how many bytes it may write, 0 for no limit.
	Limit uint64
	// Device is the path of Prepare's block device, "" for none.
	Device string
}

// fileSystems are the names of statfs(2)'s types that matter here.
var fileSystems = map[int64]string{
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.MSDOS_SUPER_MAGIC:     "FAT",
	unix.V9FS_MAGIC:            "9p",
	unix.FUSE_SUPER_MAGIC:      "FUSE",
}

// FileSystem names the file system of a path, one that is not known by its
// number.
func FileSystem(path string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return "", fmt.Errorf("statfs %s: %w", path, err)
	}
	if name, known := fileSystems[int64(fs.Type)]; known {
		return name, nil
	}
	return fmt.Sprintf("file system %#x", fs.Type), nil
}

// bindRoot gives a machine a tree, as it is, for its root: on dir/mnt/root, which it returns.
func bindRoot(dir, tree string, owner int) (root string, err error) {
	mnt, err := scratch(dir, "")
	if err != nil {
		return "", err
	}
	root = filepath.Join(mnt, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	return root, bindTree(tree, root, owner)
}

// scratch mounts an empty tmpfs on dir/mnt, the private place where a
// machine's root is put together, and returns its path.
func scratch(dir string, options string) (string, error) {
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := unix.Mount("machine", mnt, "tmpfs", unix.MS_NODEV, "mode=0755"+options); err != nil {
		return "", fmt.Errorf("mount tmpfs on %s: %w", mnt, err)
	}
	fault.Here("storage: scratch mounted")
	return mnt, nil
}
