package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// In the Python original a chroot is a plain directory NAME. Jobs run on it as it is. The
// first build, rollback or removal of the image adopts it: then it is a generation, and
// NAME is a link to it.

// adoptedStamp is the stamp that a plain directory has in records of machines, and keeps
// when it is adopted: older than all others, and free.
func (s *Store) adoptedStamp(name string) string {
	for i := 0; ; i++ {
		stamp := fmt.Sprintf("00000000T%06dZ", i)
		info, err := os.Lstat(filepath.Join(s.generations(name), stamp))
		if err != nil || !info.IsDir() {
			return stamp
		}
	}
}

// adopt makes a plain directory a generation. It needs the lock .build. The directory changes
// places with the link in one step: so nothing is copied, and there is a chroot at every moment.
func (s *Store) adopt(name string) error {
	public := filepath.Join(s.StateDir, name)
	info, err := os.Lstat(public)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	stamp := s.adoptedStamp(name)
	generation := filepath.Join(s.generations(name), stamp)
	if err := os.Symlink(filepath.Join(".generations", name, stamp), generation); err != nil {
		return err
	}
	fault.Here("image: link to be exchanged made")
	if err := unix.Renameat2(unix.AT_FDCWD, generation, unix.AT_FDCWD, public, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s with %s: %w", generation, public, err)
	}
	fault.Here("image: chroot of the original adopted")
	return errors.Join(flush(s.StateDir, unix.Fsync), flush(s.generations(name), unix.Fsync))
}
