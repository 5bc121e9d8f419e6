package storage

import (
	"fmt"
	"os"
	"path/filepath"
)

// btrfs is the backend that makes a snapshot of the chroot's subvolume. quota.go limits it.
type btrfs struct{}

func (btrfs) Name() string { return "btrfs" }

func (btrfs) Traits() Traits { return Traits{} }

func (btrfs) CanLimit(machines string) error { return canLimitSubvolumes(machines) }

func (btrfs) Prepare(dir, chroot string, owner int, limit uint64) (*os.File, error) {
	snapshot := filepath.Join(dir, "snapshot")
	if err := snapshotOf(chroot, snapshot); err != nil || limit == 0 {
		return nil, err
	}
	return nil, limitSubvolume(snapshot, limit)
}

func (btrfs) Used(dir string) (bytes, files uint64, err error) {
	used, limit, err := subvolumeUse(filepath.Join(dir, "snapshot"))
	return percent(used, limit), 0, err
}

func (btrfs) Mount(dir, chroot string, owner int, disk Disk) (string, error) {
	if disk.Limit > 0 {
		if err := refuseQuotaGroups(); err != nil {
			return "", err
		}
	}
	root, err := bindRoot(dir, filepath.Join(dir, "snapshot"), owner)
	if err != nil {
		return "", fmt.Errorf("backend btrfs: %w", err)
	}
	return root, nil
}
