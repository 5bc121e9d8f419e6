package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"nspawn-runner/runner/lock"
)

// lock opens and locks one of the image's lock files. Closing it unlocks it, and
// so does the end of the process, however it ends. If another one has it, lock
// calls waiting once, if that is set, and then waits, unless it returns an error.
func (s *Store) lock(ctx context.Context, name, file string, mode lock.Mode, waiting func() error) (*os.File, error) {
	path := filepath.Join(s.generations(name), file)
	held, err := lock.TryFile(path, mode)
	if !errors.Is(err, lock.ErrBusy) {
		return held, err
	}
	if waiting != nil {
		if err := waiting(); err != nil {
			return nil, err
		}
	}
	return lock.File(ctx, path, mode)
}
