package storage

import (
	"fmt"
	"os"
	"path/filepath"
)

// btrfs is the backend that snapshots the chroot's subvolume.
type btrfs struct{}

func (btrfs) Name() string { return "btrfs" }

func (btrfs) Prepare(dir, chroot string, owner int) error {
	return Snapshot(chroot, filepath.Join(dir, "snapshot"))
}

func (btrfs) Mount(dir, chroot string, owner int) (string, error) {
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
