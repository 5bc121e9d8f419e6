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

// On btrfs, a quota group limits a machine. The group has the machine's subvolume, and the subvolumes that the
// job makes in it. With simple quotas (Linux 6.7), a new subvolume gets the groups of the subvolume around it,
// unless the process that makes it names others, which quotafilter.go forbids. With the older quotas it would
// be in no group, and the job would have no limit. Blocks that a snapshot shares with the chroot count to the
// chroot.

// quotaLevel is the level of the groups of this program: "ns". The number of a group is that of the machine's
// subvolume, which the kernel uses only once.
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

// canLimitSubvolumes returns an error if the btrfs of a directory has no simple quotas. The administrator has to
// turn them on, because an older kernel cannot mount the file system afterwards.
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
		return fmt.Errorf("the quotas of the btrfs of %s are not simple quotas, and do not limit subvolumes that a job makes: "+
			"'btrfs quota disable %[1]s' and 'btrfs quota enable --simple %[1]s', or set \"backend: overlay\"", dir)
	}
	return fmt.Errorf("the btrfs of %s has no simple quotas: 'btrfs quota enable --simple %[1]s' turns them on (Linux 6.7; an older one will not mount it any more), "+
		"or set \"backend: overlay\"", dir)
}

// quotaGroups returns the kernel's directory for the quota groups of a path's btrfs. It exists while quotas are
// on.
func quotaGroups(path string) (string, error) {
	var info fsInfo
	if err := ioctlIn(path, ioctlFSInfo, unsafe.Pointer(&info)); err != nil {
		return "", fmt.Errorf("ask for the btrfs of %s: %w", path, err)
	}
	id := info.id
	return fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/qgroups", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), nil
}

// limitSubvolume limits how many bytes a subvolume may have of its own. It also removes groups of machines whose
// subvolumes are gone.
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

// subvolumeID returns the number of a directory's subvolume.
func subvolumeID(dir *os.File) (uint64, error) {
	args := inoLookupArgs{object: subvolumeInode}
	if err := ioctl(dir, ioctlInoLookup, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("ask for the subvolume of %s: %w", dir.Name(), err)
	}
	return args.tree, nil
}

// forgetGroups removes groups of machines whose subvolumes are gone. The kernel's own group of a subvolume goes
// when its space is free again, which takes a while (since Linux 6.11; before, it stays). So each start removes
// the groups of earlier machines.
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

// subvolumeUse returns how many bytes a subvolume has used, and its limit.
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
