package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// leastCost is what a file counts at least: a million empty ones take inodes.
	leastCost = 4096
	// maxDepth is deeper than any tree that somebody keeps on purpose. Each
	// level costs the walk a file descriptor.
	maxDepth = 128
)

// maxFiles is how many files of a cache are told apart; a variable for tests.
var maxFiles = 100_000

// file is a file of a cache, or an empty directory.
type file struct {
	path string // below the cache
	size uint64
	used int64 // when it was read or written last, in nanoseconds
}

// content is what a cache holds.
type content struct {
	size  uint64
	files []file
	// tooDeep: not all was counted. tooMany: files is empty.
	tooDeep, tooMany bool
}

// measure counts a cache, without following links. A job may be at work in it:
// then the result is worth nothing, but nothing else can happen.
func measure(ctx context.Context, path string) (content, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return content{}, fmt.Errorf("open %s: %w", path, err)
	}
	var c content
	if _, err := c.add(ctx, fd, "", 0); err != nil {
		return content{}, fmt.Errorf("measure %s: %w", path, err)
	}
	return c, nil
}

// add counts an open directory, closes it, and says whether it is empty.
func (c *content) add(ctx context.Context, fd int, path string, depth int) (empty bool, err error) {
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	empty = true
	for {
		names, err := dir.Readdirnames(1024) // there may be millions
		if errors.Is(err, io.EOF) {
			return empty, nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return false, err
		}
		empty = false
		for _, name := range names {
			if err := c.addEntry(ctx, fd, filepath.Join(path, name), name, depth); err != nil && !isGone(err) {
				return false, err
			}
		}
	}
}

// isGone says whether a name is not any more what it was when it was read.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func (c *content) addEntry(ctx context.Context, dir int, path, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	size := uint64(st.Blocks) * 512
	if !isDir {
		size /= max(1, uint64(st.Nlink)) // each name of a file has its share
	}
	size = max(size, leastCost)
	c.size += size
	if isDir && depth < maxDepth {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		empty, err := c.add(ctx, fd, path, depth+1)
		if err != nil || !empty {
			return err // it goes with the last one of its files
		}
	}
	switch {
	case isDir && depth == maxDepth:
		c.tooDeep = true
	case len(c.files) == maxFiles:
		c.tooMany, c.files = true, nil
	case !c.tooMany:
		used := max(time.Unix(st.Atim.Unix()).UnixNano(), time.Unix(st.Mtim.Unix()).UnixNano())
		c.files = append(c.files, file{path, size, used})
	}
	return nil
}
