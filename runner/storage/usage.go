package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Usage returns how many bytes a tree takes on the disk. Like du(1), it counts hard links once, holes not at all,
// and blocks that are shared with another tree in full.
func Usage(ctx context.Context, root string) (int64, error) {
	type inode struct{ device, number uint64 }
	seen := map[inode]bool{}
	var total int64
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, fs.ErrNotExist) && path != root {
			return nil // it was deleted meanwhile
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if !entry.IsDir() && stat.Nlink > 1 {
			link := inode{stat.Dev, stat.Ino}
			if seen[link] {
				return nil
			}
			seen[link] = true
		}
		total += stat.Blocks * 512
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", root, err)
	}
	return total, nil
}
