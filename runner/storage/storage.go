// Package storage makes the writable roots of machines, and removes trees.
//
// A chroot is never written to. A machine has a copy-on-write view of it, which one of three backends
// makes:
//
//   - btrfs: a snapshot of the chroot's subvolume;
//   - overlay: an overlay whose upper layer lies in the machine's directory;
//   - tmpfs: an overlay whose upper layer lies in memory.
//
// A backend works in two steps. Prepare runs in the driver, and makes what must be on the disk. Mount runs
// in the machine's service, in a mount namespace of its own, just before systemd-nspawn is executed. The
// host does not see these mounts, and they end with the machine.
//
// Each machine has a range of RangeSize user ids. The chroot on the disk belongs to the host's root, and
// the machine's root is another user. An idmapped mount translates between them (mount_setattr(2)), so no
// file changes its owner.
//
//	storage.go    the interface of backends
//	choose.go     which backend a machine gets
//	btrfs.go      snapshots: quota.go and quotafilter.go limit them
//	overlay.go    overlays: layer.go limits them, stores.go has directories for containers
//	inplace.go    machines of builds, which write to the tree itself
//	idmap.go      binds and idmapped mounts
//	place.go      opens paths of the host, and paths in a machine's root
//	tree.go       copies trees
//	remove.go     removes trees: open.go opens files in them
//	subvolume.go  subvolumes of btrfs
//	space.go      free space, and what a copy would take
//	usage.go      the size of a tree
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
	// CanLimit returns an error if the writes of machines, whose directories are in the directory
	// machines, cannot be limited. The error says what to do about it.
	CanLimit(machines string) error
	// Prepare makes what must exist on the disk before the machine starts. dir is the machine's
	// directory. owner is the host's user id of the machine's root, 0 without a user namespace.
	// limit is how many bytes the machine may write, 0 for no limit. device is the block device that
	// Mount needs, or nil. The kernel removes it when it is neither open nor mounted.
	Prepare(dir, chroot string, owner int, limit uint64) (device *os.File, err error)
	// Mount mounts the machine's root on dir/mnt/root and returns that path. It must run in a mount
	// namespace of its own.
	Mount(dir, chroot string, owner int, disk Disk) (root string, err error)
	// Used returns how much of its limit a machine has used, in percent of bytes and of files. dir is
	// its directory in its mount namespace.
	Used(dir string) (bytes, files uint64, err error)
}

// Traits are properties of the roots that a backend makes.
type Traits struct {
	// InMemory says that writes take memory, and not disk.
	InMemory bool
	// Reserved says that a start reserves the whole limit on the disk.
	Reserved bool
	// Volatile says that the file system of the root never waits for the disk, also on fsync(2).
	Volatile bool
}

// Disk describes where a machine writes.
type Disk struct {
	// Limit is how many bytes the machine may write, 0 for no limit.
	Limit uint64
	// Device is the path of the block device of Prepare, "" for none.
	Device string
}

// fileSystems are names for types of statfs(2).
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

// FileSystem returns the name of a path's file system, or its number if the name is not known.
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

// bindRoot mounts a tree itself as the root of a machine, on dir/mnt/root, and returns that path.
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

// scratch mounts an empty tmpfs on dir/mnt and returns its path. The root of the machine is made in it.
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
