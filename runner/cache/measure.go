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
	// nameCost is what is kept of a file beside its name.
	nameCost = 64
)

// Variables for tests.
var (
	// maxFiles is how many files of a cache are told apart.
	maxFiles = 100_000
	// maxNames bounds the bytes that they take in memory: a job may give its files
	// names of 255 letters.
	maxNames = 16 << 20
)

// file is a file of a cache, or an empty directory.
type file struct {
	dir  *directory
	name string
	size uint64
	used int64 // when it was read or written last, in nanoseconds
}

// directory is a directory of a cache. Files share theirs: a path for each could be a
// hundred times as long as its name.
type directory struct {
	in     *directory // nil for the cache itself
	name   string
	number int // in the order in which they are come to
}

// path is a directory's path below the cache.
func (d *directory) path() string {
	if d.in == nil {
		return "."
	}
	return filepath.Join(d.in.path(), d.name)
}

// content is what a cache holds.
type content struct {
	size  uint64
	files []file
	// names is how much memory names take, of files and of directories.
	names       int
	directories int
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
	if _, err := c.add(ctx, fd, &directory{}, 0); err != nil {
		return content{}, fmt.Errorf("measure %s: %w", path, err)
	}
	return c, nil
}

// add counts an open directory, closes it, and says whether it is empty.
func (c *content) add(ctx context.Context, fd int, at *directory, depth int) (empty bool, err error) {
	dir := os.NewFile(uintptr(fd), at.name)
	defer dir.Close()
	empty = true
	for {
		names, err := dir.Readdirnames(128) // there may be millions, in each of the directories above
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
			if err := c.addEntry(ctx, fd, at, name, depth); err != nil && !isGone(err) {
				return false, err
			}
		}
	}
}

// isGone says whether a name is not any more what it was when it was read.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func (c *content) addEntry(ctx context.Context, dir int, at *directory, name string, depth int) error {
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
		c.keep(name)
		c.directories++
		empty, err := c.add(ctx, fd, &directory{at, name, c.directories}, depth+1)
		if err != nil || !empty {
			return err // it goes with the last one of its files
		}
	}
	switch {
	case isDir && depth == maxDepth:
		c.tooDeep = true
	case c.keep(name):
		used := max(time.Unix(st.Atim.Unix()).UnixNano(), time.Unix(st.Mtim.Unix()).UnixNano())
		c.files = append(c.files, file{at, name, size, used})
	}
	return nil
}

// keep says whether there is room for one more name, and else lets go of all of them.
func (c *content) keep(name string) bool {
	c.names += nameCost + len(name)
	if len(c.files) == maxFiles || c.names > maxNames {
		c.tooMany, c.files = true, nil
	}
	return !c.tooMany
}
