package machine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// places has a link for each machine of this boot, named by its id, which leads to its
// directory. By it run and cleanup find a machine without the configuration, which an
// administrator may change, or break, while jobs run.
const places = "/run/nspawn-runner"

// Find returns the directory of the machine with this id, by whatever state directory it
// was started.
func Find(id string) (dir string, found bool) {
	dir, err := os.Readlink(filepath.Join(places, id))
	return dir, err == nil && exists(dir)
}

// notePlace makes a machine's link. Two machines of one id cannot be: units, machines and
// user ids are the host's.
func (s Store) notePlace(id string) error {
	if dir, found := Find(id); found && !isSame(dir, s.dir(id)) {
		return fmt.Errorf("there is one of this id already, in %s; 'nspawn-runner cleanup --id %s' removes it", dir, id)
	}
	if err := os.MkdirAll(places, 0o700); err != nil {
		return err
	}
	made := filepath.Join(places, "."+rand.Text())
	if err := os.Symlink(s.dir(id), made); err != nil {
		return err
	}
	return os.Rename(made, filepath.Join(places, id))
}

// forgetPlace removes a machine's link, unless it is another state directory's.
func (s Store) forgetPlace(id string) error {
	if dir, found := Find(id); found && !isSame(dir, s.dir(id)) {
		return nil
	}
	if err := os.Remove(filepath.Join(places, id)); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	return nil
}

// isSame says whether two paths lead to one file or directory.
func isSame(a, b string) bool {
	first, err := os.Stat(a)
	second, secondErr := os.Stat(b)
	return a == b || err == nil && secondErr == nil && os.SameFile(first, second)
}
