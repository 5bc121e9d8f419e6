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

// OpenPlace opens what lies at an absolute path of the host, as a place only:
// open(2), O_PATH. A symbolic link on the way is an error, since a job may have put
// it there, in a directory that it can write to.
func OpenPlace(path string) (*os.File, error) {
	return walk(path, func(string, *unix.Stat_t) {})
}

// linkError is a symbolic link on the way to a place.
type linkError struct{ path string }

func (e linkError) Error() string {
	return e.path + " is a symbolic link, which a job may have put there: name the place itself, which 'readlink -f' shows"
}

// Resolve is the path to the same place that OpenPlace takes: the links on the way are
// followed, such as /lib of a merged /usr, but none that lies in a directory that jobs can
// write to. open are these, by paths without links.
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

// CheckClosed says whether the host's ordinary users are kept from what lies at a
// path, or from becoming root by it: its mount knows no setuid, or one of the
// directories above it is for root alone. open are directories that jobs can open,
// with all that is below them; so is the path itself.
func CheckClosed(path string, open []string) error {
	closed := false
	place, err := walk(path, func(dir string, st *unix.Stat_t) {
		// Where there is an access control list, the group's bits bound all of it.
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

// isIn says whether a directory is one of several, or lies in one.
func isIn(dir string, several []string) bool {
	for _, top := range several {
		if dir == top || strings.HasPrefix(dir, top+"/") {
			return true
		}
	}
	return false
}

// walk opens a path step by step, and shows the directories above it, the root first.
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

// step opens a name in a directory. As a directory first: that is when the kernel
// mounts what is mounted on demand.
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

// OpenIn opens a path below root as a machine with that root would see it: links are
// resolved inside it.
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
