package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nspawn-runner/runner/lock"
)

// lock opens and locks one of the image's lock files. Closing it unlocks it, and
// so does the end of the process, however it ends. If another process has the lock, lock
// calls waiting once, if that is set, and then waits, unless waiting returns an error.
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

// lockBuild locks out builds of an image and removes what a killed build left: the stamp
// in the file .build must not outlive a change of the link, or the next build takes a
// published generation for an unfinished one. With noWait, a build that is at work is a
// *BusyError.
func (s *Store) lockBuild(ctx context.Context, name string, noWait bool) (*os.File, error) {
	held, err := s.lock(ctx, name, ".build", lock.Exclusive, func() error {
		if noWait {
			return &BusyError{By: s.builder(name)}
		}
		s.note(name, "wait for "+s.builder(name)+" to end")
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.clean(context.WithoutCancel(ctx), held, name); err != nil {
		held.Close()
		return nil, fmt.Errorf("remove what a killed build left: %w", err)
	}
	return held, nil
}
