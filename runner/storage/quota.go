package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A machine on btrfs is limited by a quota group that has its subvolume, and the
// subvolumes that the job makes in it: those of simple quotas, which Linux has
// since 6.7, go into the groups of the one around them, where nobody says otherwise
// (quotafilter.go). With the older quotas they
// would be in none, and a job without a limit. What a snapshot shares counts as
// the chroot's.

// quotaLevel is the level of our groups, by which they are known: "ns". A group
// has the number of the machine's subvolume, which the kernel uses only once.
const quotaLevel = 0x6e73

// More of linux/btrfs.h.
const (
	ioctlQgroupAssign = 0x40189429 // BTRFS_IOC_QGROUP_ASSIGN
	ioctlQgroupCreate = 0x4010942a // BTRFS_IOC_QGROUP_CREATE
	ioctlQgroupLimit  = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	ioctlInoLookup    = 0xd0009412 // BTRFS_IOC_INO_LOOKUP

	limitReferenced = 1 // BTRFS_QGROUP_LIMIT_MAX_RFER
)

type qgroupCreateArgs struct{ create, id uint64 }

type qgroupAssignArgs struct{ assign, from, to uint64 }

type qgroupLimitArgs struct {
	id, flags, maxReferenced uint64
	_                        [3]uint64
}

type inoLookupArgs struct {
	tree, object uint64
	name         [4080]byte
}

// canLimitSubvolumes says whether the btrfs of a directory has simple quotas. To
// turn them on is for who owns it: no kernel without them mounts it again.
func canLimitSubvolumes(dir string) error {
	groups, err := quotaGroups(dir)
	if err != nil {
		return err
	}
	mode, err := os.ReadFile(filepath.Join(groups, "mode"))
	if string(bytes.TrimSpace(mode)) == "squota" { // fs/btrfs/sysfs.c
		return nil
	}
	if err == nil {
		return fmt.Errorf("the quotas of the btrfs of %s are not simple ones, which alone also hold for subvolumes that a job makes: "+
			"'btrfs quota disable %[1]s' and 'btrfs quota enable --simple %[1]s', or set \"backend: overlay\"", dir)
	}
	return fmt.Errorf("the btrfs of %s has no simple quotas: 'btrfs quota enable --simple %[1]s' turns them on (Linux 6.7; an older one will not mount it any more), "+
		"or set \"backend: overlay\"", dir)
}

// quotaGroups is the kernel's directory of the quota groups of a path's btrfs. It
// is there while quotas are on.
func quotaGroups(path string) (string, error) {
	var info fsInfo
	if err := ioctlIn(path, ioctlFSInfo, unsafe.Pointer(&info)); err != nil {
		return "", fmt.Errorf("ask for the btrfs of %s: %w", path, err)
	}
	id := info.id
	return fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/qgroups", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), nil
}

// limitSubvolume keeps a subvolume from writing more than so many bytes. It also
// removes our groups of subvolumes that are gone.
func limitSubvolume(path string, limit uint64) error {
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := subvolumeID(dir)
	if err != nil {
		return err
	}
	forgetGroups(dir)
	group := uint64(quotaLevel)<<48 | id
	if err := ioctl(dir, ioctlQgroupCreate, unsafe.Pointer(&qgroupCreateArgs{create: 1, id: group})); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make a quota group of %s: %w", path, err)
	}
	if err := ioctl(dir, ioctlQgroupLimit, unsafe.Pointer(&qgroupLimitArgs{id: group, flags: limitReferenced, maxReferenced: limit})); err != nil {
		return fmt.Errorf("limit the quota group of %s: %w", path, err)
	}
	if err := ioctl(dir, ioctlQgroupAssign, unsafe.Pointer(&qgroupAssignArgs{assign: 1, from: id, to: group})); err != nil {
		return fmt.Errorf("put %s into its quota group: %w", path, err)
	}
	return nil
}

// subvolumeID is the number of the subvolume that a directory lies in.
func subvolumeID(dir *os.File) (uint64, error) {
	args := inoLookupArgs{object: subvolumeInode}
	if err := ioctl(dir, ioctlInoLookup, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("ask for the subvolume of %s: %w", dir.Name(), err)
	}
	return args.tree, nil
}

// forgetGroups removes our groups whose subvolume is gone, and with it the kernel's own
// group of it, which goes when the space is given back (since Linux 6.11; before, both
// stay). So there is no better moment than later.
func forgetGroups(dir *os.File) {
	groups, err := quotaGroups(dir.Name())
	if err != nil {
		return
	}
	ours, _ := filepath.Glob(filepath.Join(groups, fmt.Sprintf("%d_*", quotaLevel)))
	for _, path := range ours {
		_, number, _ := strings.Cut(filepath.Base(path), "_")
		id, err := strconv.ParseUint(number, 10, 48)
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(groups, "0_"+number)); errors.Is(err, fs.ErrNotExist) {
			_ = ioctl(dir, ioctlQgroupCreate, unsafe.Pointer(&qgroupCreateArgs{id: quotaLevel<<48 | id}))
		}
	}
}

// subvolumeUse is how much of its limit a subvolume has used.
func subvolumeUse(path string) (used, limit uint64, err error) {
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return 0, 0, err
	}
	defer dir.Close()
	id, err := subvolumeID(dir)
	if err != nil {
		return 0, 0, err
	}
	groups, err := quotaGroups(path)
	if err != nil {
		return 0, 0, err
	}
	group := filepath.Join(groups, fmt.Sprintf("%d_%d", quotaLevel, id))
	for file, number := range map[string]*uint64{"referenced": &used, "max_referenced": &limit} {
		text, err := os.ReadFile(filepath.Join(group, file))
		if err != nil {
			return 0, 0, err
		}
		if *number, err = strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", filepath.Join(group, file), err)
		}
	}
	return used, limit, nil
}
