package storage

import (
	"os"

	"golang.org/x/sys/unix"
)

func openDir(at int, name string) (*os.File, error) { return openAt(at, name, unix.O_DIRECTORY) }

// openAt opens a file in a directory for reading. It does not follow a link.
func openAt(at int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
