package unpack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the depth of a tree that is removed: each level takes an open file.
const maxDepth = 500

// removal removes files from a tree.
type removal struct {
	// fresh are the inodes that the current layer has made. A whiteout is only for files of the layers
	// below.
	fresh map[uint64]struct{}
	// emptied are the inodes of directories from which the current layer has removed all files of the
	// layers below. If a layer asks for this again, there is nothing more to remove.
	emptied map[uint64]struct{}
	// freed is how many bytes on the disk were freed.
	freed uint64
}

// blocks returns about how many bytes a file of a size takes on the disk: at least one block for its inode and its name.
func blocks(size uint64) uint64 { return max(1, (size+4095)/4096) * 4096 }

// whiteOut removes the file or tree with a name, as far as it is of the layers below.
func (r *removal) whiteOut(dir, name string) error {
	if name == "" || name == "." || name == ".." {
		return errors.New("it marks no file as removed")
	}
	err := r.remove(path.Join(dir, name), true)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// empty removes everything of the layers below from a directory.
func (r *removal) empty(dir string) error {
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = r.emptyAt(os.NewFile(uintptr(at), dir), true, 0)
	return err
}

// remove removes a file or a tree. With older, it removes only files of the layers below. It does not follow links.
func (r *removal) remove(name string, older bool) error {
	dir, err := unix.Open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	_, err = r.removeAt(dir, path.Base(name), older, 0)
	return err
}

// removeAt is remove for a name in an open directory. gone says whether nothing of it is left.
func (r *removal) removeAt(dir int, name string, older bool, depth int) (gone bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	_, fresh := r.fresh[st.Ino]
	keep := older && fresh
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if keep {
			return false, nil
		}
		if st.Nlink == 1 {
			r.freed += blocks(uint64(st.Size))
		}
		return true, unix.Unlinkat(dir, name, 0)
	}
	if depth > maxDepth {
		return false, fmt.Errorf("it has more than %d directories in each other", maxDepth)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	gone, err = r.emptyAt(os.NewFile(uintptr(fd), name), older, depth+1)
	if err != nil || !gone || keep {
		return false, err
	}
	if err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == unix.ENOTEMPTY && older {
		return false, nil // it was emptied before, and still has files of this layer
	}
	if err == nil {
		r.freed += blocks(1)
	}
	return err == nil, err
}

// emptyAt calls removeAt for everything in an open directory, and closes it.
func (r *removal) emptyAt(dir *os.File, older bool, depth int) (gone bool, err error) {
	defer dir.Close()
	if older {
		var st unix.Stat_t
		if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
			return false, err
		}
		if _, before := r.emptied[st.Ino]; before {
			return true, nil
		}
		r.emptied[st.Ino] = struct{}{}
	}
	names, err := dir.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return false, err
	}
	gone = true
	for _, name := range names {
		one, err := r.removeAt(int(dir.Fd()), name, older, depth)
		if err != nil {
			return false, err
		}
		gone = gone && one
	}
	return gone, nil
}
