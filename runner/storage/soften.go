package storage

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// soften takes from a tree what keeps root from deleting it: attribute flags,
// subvolumes, which it deletes, and depth. A job may make directories so deep that
// no path leads there, and no process has as many open files.
func soften(ctx context.Context, path string) error {
	top, err := openAt(unix.AT_FDCWD, path, unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer top.Close()
	if info, err := top.Stat(); err != nil || !info.IsDir() {
		clearFlags(top)
		return err
	}
	onBtrfs, err := IsBtrfs(path)
	if err != nil {
		return err
	}
	if subvolume, err := IsSubvolume(path); err == nil && subvolume {
		if err := makeWritable(top); err != nil {
			return err
		}
	}
	return softener{ctx, onBtrfs}.tree(top)
}

type softener struct {
	ctx     context.Context
	onBtrfs bool
}

// maxDepth is how deep a directory may lie in its tree. What lies deeper is moved
// up to the top.
const maxDepth = 200

// tree softens a directory and what is below it on the same subvolume, and the
// subvolumes there as trees of their own.
func (s softener) tree(top *os.File) error {
	var moved []string
	if err := s.dir(top, top, 0, &moved); err != nil {
		return err
	}
	for n := 0; n < len(moved); n++ {
		dir, err := openDir(int(top.Fd()), moved[n])
		if err != nil {
			return err
		}
		err = s.dir(top, dir, 1, &moved)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s softener) dir(top, dir *os.File, depth int, moved *[]string) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	clearFlags(dir)
	// What cannot be read, the second try to delete it will name.
	entries, _ := dir.ReadDir(-1)
	for _, entry := range entries {
		switch {
		case entry.IsDir():
			if err := s.below(top, dir, entry.Name(), depth, moved); err != nil {
				return err
			}
		case entry.Type().IsRegular():
			if file, err := openAt(int(dir.Fd()), entry.Name(), unix.O_NONBLOCK); err == nil {
				clearFlags(file)
				file.Close()
			}
		}
	}
	return nil
}

// below softens the directory name in dir.
func (s softener) below(top, dir *os.File, name string, depth int, moved *[]string) error {
	sub, err := openDir(int(dir.Fd()), name)
	if err != nil {
		return nil
	}
	defer sub.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(sub.Fd()), &st); err != nil {
		return err
	}
	if s.onBtrfs && st.Ino == subvolumeInode {
		// Read-only ones must be opened up before anything in them can change.
		if err := makeWritable(sub); err != nil {
			return err
		}
		if err := s.tree(sub); err != nil {
			return err
		}
		fault.Here("storage: about to delete a subvolume inside")
		return destroyAt(dir, name)
	}
	if depth < maxDepth {
		return s.dir(top, sub, depth+1, moved)
	}
	clearFlags(sub)
	up := rand.Text() // nobody can have taken it
	err = unix.Renameat2(int(dir.Fd()), name, int(top.Fd()), up, unix.RENAME_NOREPLACE)
	if err != nil {
		return fmt.Errorf("move a deep directory up: %w", err)
	}
	fault.Here("storage: a deep directory moved up")
	*moved = append(*moved, up)
	return nil
}

func openDir(at int, name string) (*os.File, error) { return openAt(at, name, unix.O_DIRECTORY) }

// openAt opens a file in a directory for reading, not following a link.
func openAt(at int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// The flags of chattr(1), FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h.
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// clearFlags removes the immutable and append-only flags of chattr(1) from a
// file. Failure shows when the file cannot be deleted.
func clearFlags(file *os.File) {
	flags, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(immutable|appendOnly) == 0 {
		return
	}
	_ = unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags&^(immutable|appendOnly))
}
