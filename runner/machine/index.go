package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// index is a directory with a link for each machine of this boot: its name is the machine's id, and it
// leads to the machine's directory. So run and cleanup find a machine without the configuration, which an
// administrator may change or break while jobs run.
const index = "/run/nspawn-runner"

// Find returns the directory of the machine with an id, in any state directory.
func Find(id string) (dir string, found bool) {
	dir, err := os.Readlink(filepath.Join(index, id))
	return dir, err == nil && exists(dir)
}

// enter makes a machine's link in the index. A host can have only one machine with an id, because the names
// of unit and machine are unique on the host.
func (s Store) enter(id string) error {
	if dir, found := Find(id); found && !isSame(dir, s.dir(id)) {
		return fmt.Errorf("there is one of this id already, in %s; 'nspawn-runner cleanup --id %s' removes it", dir, id)
	}
	if err := os.MkdirAll(index, 0o700); err != nil {
		return err
	}
	return renameio.Symlink(s.dir(id), filepath.Join(index, id))
}

// leave removes a machine's link, unless it belongs to another state directory.
func (s Store) leave(id string) error {
	if dir, found := Find(id); found && !isSame(dir, s.dir(id)) {
		return nil
	}
	if err := os.Remove(filepath.Join(index, id)); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
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

// exists says whether there is anything at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
