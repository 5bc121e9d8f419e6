package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// Remove deletes the file, tree or subvolume at path, also with read-only and nested subvolumes, and with
// immutable and append-only files. It deletes links, and does not follow them. A path that does not exist is no
// error. Several processes may remove one tree at the same time. No running machine may still change the tree.
// When ctx ends, Remove stops at the next name.
//
// A job can make a tree that is deeper than any path or number of open files, and directories with millions of
// names. Remove opens about two hundred directories at a time, and reads 512 names of each: 26 MB at most.
func Remove(ctx context.Context, path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	r := remover{ctx: ctx}
	r.onBtrfs, err = IsBtrfs(filepath.Dir(path))
	if err == nil {
		err = r.entry(dir, filepath.Base(path), 0)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// remover removes one tree.
type remover struct {
	ctx     context.Context
	onBtrfs bool
	// tops are the root of the tree, and that of the subvolume in it that is being emptied.
	tops []*os.File
	// gone counts the names that this remover has deleted, missed those that were not there any more
	// when it came to them.
	gone, missed int
}

// maxDepth is how deep directories are removed in their tree or subvolume. Deeper ones are moved to the top first.
const maxDepth = 200

// entry deletes a name in a directory of some depth.
func (r *remover) entry(dir *os.File, name string, depth int) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	var st unix.Stat_t
	if err != nil {
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT {
			return r.done("unlink", name, unix.ENOENT)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return r.directory(dir, name, st.Ino, depth)
		}
		fault.Here("storage: a file resists its removal")
		clearFlags(dir)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			clearFlagsAt(dir, name)
		}
		err = unix.Unlinkat(int(dir.Fd()), name, 0)
	}
	return r.done("unlink", name, err)
}

// done counts a name that is gone, and otherwise wraps the error. A name that another process
// has removed, such as gc beside a cleanup, is gone too.
func (r *remover) done(what, name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.missed++
	case err != nil:
		return fmt.Errorf("%s %q: %w", what, name, err)
	default:
		r.gone++
	}
	return nil
}

// directory deletes a directory, or a subvolume, with all that is in it.
func (r *remover) directory(dir *os.File, name string, inode uint64, depth int) error {
	sub, err := openDir(int(dir.Fd()), name)
	if err != nil {
		return r.done("open", name, err)
	}
	defer sub.Close()
	switch {
	case r.onBtrfs && inode == subvolumeInode:
		return r.subvolume(dir, sub, name)
	case len(r.tops) == 0:
		r.tops = []*os.File{sub}
	case depth >= maxDepth:
		clearFlags(sub)
		if err := r.moveUp(dir, name, r.tops[len(r.tops)-1]); err == nil {
			return nil
		}
		// The move failed, such as on a full disk. The directory is removed where it is, however deep.
	}
	return r.emptyAndDrop(sub, depth+1, func() error {
		err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
		if err == unix.EPERM {
			clearFlags(dir)
			clearFlags(sub)
			err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
		}
		return r.done("remove directory", name, err)
	})
}

// mostVain bounds what is done again and again without deleting anything: dropping a directory that
// is not empty, although nothing is seen in it, and looking into one that shows names that are not
// there. Another process that removes the same tree explains some of that, a damaged file system
// all of it.
const mostVain = 100

// emptyAndDrop deletes what is in a directory, and then the directory itself with drop. Another
// process that removes the same tree may move something up into it in between. Then it does
// both again.
func (r *remover) emptyAndDrop(dir *os.File, depth int, drop func() error) error {
	for tries := 0; ; tries++ {
		before := r.gone
		if err := r.empty(dir, depth); err != nil {
			return err
		}
		if r.gone > before {
			tries = 0
		}
		if err := drop(); !errors.Is(err, unix.ENOTEMPTY) || tries == mostVain {
			return err
		}
	}
}

// subvolume deletes a subvolume. The kernel deletes it at once if it has no other subvolumes in it. A subvolume
// in another one is moved to the top of the tree, so that no more than two are open.
func (r *remover) subvolume(dir, sub *os.File, name string) error {
	clearFlags(dir)
	// A read-only subvolume must become writable before it can change.
	if err := makeWritable(sub); err != nil {
		return r.done("open up", name, err)
	}
	fault.Here("storage: about to delete a subvolume")
	if destroyAt(dir, name) == nil {
		return r.done("", name, nil)
	}
	clearFlags(sub)
	if len(r.tops) >= 2 {
		if err := r.moveUp(dir, name, r.tops[0]); err == nil {
			return nil
		}
	}
	r.tops = append(r.tops, sub)
	defer func() { r.tops = r.tops[:len(r.tops)-1] }()
	return r.emptyAndDrop(sub, 1, func() error {
		return r.done("delete subvolume", name, destroyAt(dir, name))
	})
}

// empty deletes what is in a directory, also what is moved up into it meanwhile.
func (r *remover) empty(dir *os.File, depth int) error {
	for vain := 0; ; vain++ {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		gone, missed := r.gone, r.missed
		err := r.pass(dir, depth)
		if r.gone > gone {
			vain = 0
		}
		if r.gone == gone && (r.missed == missed || vain == mostVain) || r.ctx.Err() != nil {
			return err
		}
	}
}

// pass deletes what is in a directory. It goes on after an error, and returns the first one.
func (r *remover) pass(dir *os.File, depth int) (failed error) {
	for {
		names, err := dir.Readdirnames(512) // there may be millions
		for _, name := range names {
			if r.ctx.Err() != nil {
				return context.Cause(r.ctx)
			}
			if err := r.entry(dir, name, depth); failed == nil {
				failed = err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, fs.ErrNotExist): // it is empty, or gone
			return failed
		case err != nil:
			return err
		}
	}
}

// moveUp moves a directory to the top of its tree.
func (r *remover) moveUp(dir *os.File, name string, top *os.File) error {
	up := rand.Text() // so no other file has this name
	err := unix.Renameat2(int(dir.Fd()), name, int(top.Fd()), up, unix.RENAME_NOREPLACE)
	if err == unix.EPERM {
		clearFlags(dir)
		clearFlags(top)
		err = unix.Renameat2(int(dir.Fd()), name, int(top.Fd()), up, unix.RENAME_NOREPLACE)
	}
	fault.Here("storage: a deep directory moved up")
	return r.done("move", name, err)
}

// Flags of chattr(1): FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h.
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// clearFlagsAt is clearFlags for a regular file in a directory.
func clearFlagsAt(dir *os.File, name string) {
	if file, err := openAt(int(dir.Fd()), name, unix.O_NONBLOCK); err == nil {
		clearFlags(file)
		file.Close()
	}
}

// clearFlags removes the immutable and append-only flags from a file. It ignores errors, because the removal of
// the file reports them.
func clearFlags(file *os.File) {
	flags, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(immutable|appendOnly) == 0 {
		return
	}
	_ = unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags&^(immutable|appendOnly))
}
