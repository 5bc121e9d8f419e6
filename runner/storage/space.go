package storage

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Free returns how many bytes can still be written to the file system of a path, without the reserve for root:
// f_bavail of statvfs(3).
func Free(path string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// FreeInodes returns which part of a path's file system's inodes is free, from 0 to 1. Without a free inode, no file can
// be made. It is 1 if the file system makes inodes when they are needed, as btrfs does.
func FreeInodes(path string) (float64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	if fs.Files == 0 {
		return 1, nil
	}
	return float64(fs.Ffree) / float64(fs.Files), nil
}

// CloneCost returns how many bytes a Clone of a tree needs on the same file system: 0 if the clone shares blocks.
func CloneCost(ctx context.Context, path string) (int64, error) {
	if sharesBlocks(filepath.Dir(path)) {
		return 0, nil
	}
	return Usage(ctx, path)
}

// sharesBlocks tries whether files on the file system of a directory can share blocks, as on btrfs and most xfs:
// ioctl_ficlone(2).
func sharesBlocks(dir string) bool {
	var files [2]int
	for i := range files {
		// A file without a name is never left behind.
		file, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		defer unix.Close(file)
		files[i] = file
	}
	return unix.IoctlFileClone(files[0], files[1]) == nil
}

// Exclusive returns how many bytes of a btrfs subvolume no other subvolume shares: its removal frees them. They
// are known only if the host has the program btrfs.
func Exclusive(ctx context.Context, path string) (bytes int64, known bool) {
	if is, err := IsSubvolume(path); err != nil || !is {
		return 0, false
	}
	out, err := exec.CommandContext(ctx, "btrfs", "filesystem", "du", "--raw", "--summarize", path).Output()
	if err != nil {
		return 0, false
	}
	// A heading, then: total, exclusive, set shared, file name.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	words := strings.Fields(lines[len(lines)-1])
	if len(words) < 4 {
		return 0, false
	}
	bytes, err = strconv.ParseInt(words[1], 10, 64)
	return bytes, err == nil
}
