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

// Free is how many bytes can still be written to the file system of a path,
// without what it keeps for root: statvfs(3), f_bavail.
func Free(path string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// FreeInodes is the share, from 0 to 1, of the inodes of the file system of a path that new files
// can have: without one no file is made, however much space is left. It is 1 where inodes are made
// as they are needed, as on btrfs.
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

// CloneCost is how many bytes a Clone of the tree at path into the same file
// system needs: none where blocks are shared.
func CloneCost(ctx context.Context, path string) (int64, error) {
	if sharesBlocks(filepath.Dir(path)) {
		return 0, nil
	}
	return Usage(ctx, path)
}

// sharesBlocks asks the file system of a directory whether its files can share
// blocks, as on btrfs and most xfs: ioctl_ficlone(2).
func sharesBlocks(dir string) bool {
	var files [2]int
	for i := range files {
		// Without a name, which a kill could leave behind.
		file, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		defer unix.Close(file)
		files[i] = file
	}
	return unix.IoctlFileClone(files[0], files[1]) == nil
}

// Exclusive is how many bytes of a btrfs subvolume no other one shares: what its
// removal would free. It is known only where there is the program btrfs.
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
