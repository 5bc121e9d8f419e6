package unpack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// furniture are directories that systemd-nspawn needs, or programs expect.
var furniture = []struct {
	path string
	mode uint32
}{
	{"/usr", 0o755}, {"/etc", 0o755}, {"/dev", 0o755}, {"/proc", 0o555}, {"/sys", 0o555},
	{"/run", 0o755}, {"/tmp", 0o1777}, {"/var", 0o755}, {"/root", 0o700},
}

// furnish makes those directories that the tree lacks.
func furnish() error {
	for _, one := range furniture {
		info, err := os.Stat(one.path)
		switch {
		case err == nil && info.IsDir():
			continue
		case errors.Is(err, fs.ErrNotExist):
			if err = unix.Mkdir(one.path, one.mode); err == nil {
				err = unix.Chmod(one.path, one.mode)
			}
		}
		if err != nil || info != nil && !info.IsDir() {
			return fmt.Errorf("the image has %s, which is not a directory", one.path)
		}
	}
	return nil
}
