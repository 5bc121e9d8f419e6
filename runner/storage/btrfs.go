package storage

import (
	"fmt"
	"os"
	"path/filepath"
)

// btrfs is the backend that snapshots the chroot's subvolume. A limit is the
// file system's own, see quota.go.
type btrfs struct{}

func (btrfs) Name() string { return "btrfs" }

func (btrfs) CanLimit(machines string) error { return canLimitSubvolumes(machines) }

func (btrfs) Prepare(dir, chroot string, owner int, limit uint64) (*os.File, error) {
	snapshot := filepath.Join(dir, "snapshot")
	if err := Snapshot(chroot, snapshot); err != nil || limit == 0 {
		return nil, err
	}
	return nil, limitSubvolume(snapshot, limit)
}

func (btrfs) Used(dir string) (used, limit uint64, err error) {
	return subvolumeUse(filepath.Join(dir, "snapshot"))
}

func (btrfs) Mount(dir, chroot string, owner int, _ Disk) (string, error) {
	mnt, err := scratch(dir, "")
	if err != nil {
		return "", err
	}
	root := filepath.Join(mnt, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	if err := Bind(filepath.Join(dir, "snapshot"), root, owner, 0); err != nil {
		return "", fmt.Errorf("backend btrfs: %w", err)
	}
	return root, nil
}
