package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenPlace opens a file or directory of the host as a place (O_PATH of open(2)). path must be absolute. A
// symbolic link on the way is an error, because a job may have made it in a directory that it can write to.
func OpenPlace(path string) (*os.File, error) {
	return walk(path, func(string, *unix.Stat_t) {})
}

// linkError is the error for a symbolic link on the way to a place.
type linkError struct{ path string }

func (e linkError) Error() string {
	return e.path + " is a symbolic link, which a job may have put there: name the place itself, which 'readlink -f' shows"
}

// Resolve returns a path to the same place that OpenPlace accepts. It follows links on the way, such as /lib of
// a merged /usr. A link in a directory that jobs can write to is an error. open are these directories, as
// paths without links.
func Resolve(path string, open []string) (string, error) {
	path = filepath.Clean(path)
	for range 40 { // as many as the kernel follows
		place, err := OpenPlace(path)
		if err == nil {
			return path, place.Close()
		}
		var link linkError
		if !errors.As(err, &link) || isIn(filepath.Dir(link.path), open) {
			return "", err
		}
		target, err := os.Readlink(link.path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link.path), target)
		}
		path = filepath.Join(target, strings.TrimPrefix(path, link.path))
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// CheckClosed returns an error if ordinary users of the host could become root through a setuid program below a
// path. They cannot if the mount has nosuid, or if only root can enter one of the directories above the path.
// open are directories that jobs can write to: a job can change the modes in them.
func CheckClosed(path string, open []string) error {
	closed := false
	place, err := walk(path, func(dir string, st *unix.Stat_t) {
		// With an access control list, the bits of the group are its mask.
		if st.Uid == 0 && st.Mode&0o011 == 0 && !isIn(dir, open) {
			closed = true
		}
	})
	if err != nil {
		return err
	}
	defer place.Close()
	var mount unix.Statfs_t
	if err := unix.Fstatfs(int(place.Fd()), &mount); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if closed || mount.Flags&unix.ST_NOSUID != 0 {
		return nil
	}
	return fmt.Errorf("%s: users of this host could become root by the programs that a job leaves there: "+
		"move it into a directory that only root can enter (root's, chmod 700), or mount it with the option nosuid", path)
}

// isIn says whether a directory is one of several, or in one of them.
func isIn(dir string, several []string) bool {
	for _, top := range several {
		if dir == top || strings.HasPrefix(dir, top+"/") {
			return true
		}
	}
	return false
}

// walk opens a path step by step. It calls show for each directory above it, the root first.
func walk(path string, show func(dir string, st *unix.Stat_t)) (*os.File, error) {
	at, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	here := "/"
	for name := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		var st unix.Stat_t
		if err = unix.Fstat(int(at.Fd()), &st); err == nil {
			show(here, &st)
			here = filepath.Join(here, name)
			var next *os.File
			if next, err = step(at, name, here); err == nil {
				at.Close()
				at = next
				continue
			}
		}
		at.Close()
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no such file or directory on this host")
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return at, nil
}

// step opens a name in a directory. It tries a directory first, because then the kernel mounts a file system
// that is mounted on demand.
func step(dir *os.File, name, path string) (*os.File, error) {
	const place = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), name, place|unix.O_DIRECTORY, 0)
	if err == unix.ENOTDIR {
		fd, err = unix.Openat(int(dir.Fd()), name, place, 0)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		file.Close()
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		file.Close()
		return nil, linkError{path}
	}
	return file, nil
}

// OpenIn opens a path below root. Links are resolved as in a machine with this root.
func OpenIn(root, path string, flags uint64) (*os.File, error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	fd, err := unix.Openat2(at, path, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
