package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Disk is a disk of a VM, besides that of its root.
type Disk struct {
	// Path is the image file. It is made if it is not there, and outlives the
	// VM. Without a path the disk is made anew and goes away with the VM.
	Path string
	// Label, of at most 16 letters, names the file system; the disk is
	// /dev/disk/by-id/virtio-LABEL.
	Label string
	// FS is "ext4" or "btrfs", or empty for an empty disk.
	FS string
	// Size is in bytes. The file is sparse.
	Size int64
	// From is a directory whose content a new file system gets.
	From string
	// Mount is where the VM mounts it before its command runs; it does not if
	// this is empty.
	Mount string
	// ReadOnly keeps the VM from writing to it.
	ReadOnly bool
}

// create makes the image file, unless it is there. One that cannot be
// completed is removed.
func (d Disk) create(ctx context.Context) (err error) {
	f, err := os.OpenFile(d.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(d.Path)
			err = fmt.Errorf("disk: on %s: %w", d.Path, err)
		}
	}()
	if err := errors.Join(f.Truncate(d.Size), f.Close()); err != nil {
		return err
	}
	var argv []string
	switch d.FS {
	case "":
		return nil
	case "ext4":
		argv = []string{"mke2fs", "-q", "-F", "-t", "ext4", "-L", d.Label}
		if d.From != "" {
			argv = append(argv, "-d", d.From)
		}
	case "btrfs":
		argv = []string{"mkfs.btrfs", "-q", "-L", d.Label}
		if d.From != "" {
			argv = append(argv, "-r", d.From)
		}
	default:
		return fmt.Errorf("no file system %q", d.FS)
	}
	return quietly(ctx, append(argv, d.Path)...)
}
