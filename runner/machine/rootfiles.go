package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// Files in the root of a machine are opened step by step, each in a directory that is open, and no
// link is followed. An image may be hostile: a link in it could lead to a file of the host.

// openDirectory opens a directory in another one.
func openDirectory(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}

// makeIn makes a directory in another one, unless it exists, and opens it.
func makeIn(dir *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return openDirectory(dir, name)
}

// placeIn writes a file below a directory, and makes the directories on its way that do not exist.
// If a file or a link is on its way, the image has an arrangement of its own, and placeIn does nothing.
func placeIn(dir *os.File, path, text string, owner int) error {
	name, rest, deeper := strings.Cut(path, "/")
	if !deeper {
		return replaceIn(dir, name, []byte(text), owner)
	}
	err := unix.Mkdirat(int(dir.Fd()), name, 0o755)
	if err == nil {
		err = unix.Fchownat(int(dir.Fd()), name, owner, owner, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	next, err := openDirectory(dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer next.Close()
	return placeIn(next, rest, text, owner)
}

// readIn reads a small regular file in a directory.
func readIn(dir *os.File, name string) ([]byte, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, errors.New("it is not a small regular file")
	}
	data := make([]byte, info.Size())
	n, err := file.ReadAt(data, 0)
	return data[:n], err
}

// replaceIn writes a file in a directory. It replaces whatever has this name, also a link.
func replaceIn(dir *os.File, name string, data []byte, owner int) error {
	temporary := ".nspawn-runner." + name
	if err := unix.Unlinkat(int(dir.Fd()), temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err // an image may have any name
	}
	fd, err := unix.Openat(int(dir.Fd()), temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := file.Chown(owner, owner); err != nil {
		return err
	}
	fault.Here("boot: next " + name + " written")
	return unix.Renameat(int(dir.Fd()), temporary, int(dir.Fd()), name)
}

// forgetLink replaces anything but a regular file by an empty file. systemd-nspawn reads the file and follows a
// link out of the machine, to the host's id, or to a fifo without a writer.
func forgetLink(dir *os.File, name string, owner int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil
	}
	if err != nil {
		return err
	}
	return replaceIn(dir, name, nil, owner)
}
