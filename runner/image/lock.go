package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock opens and locks one of the image's lock files. Closing it unlocks it, and
// so does the end of the process, however it ends. If another one has it, lock
// calls waiting once, if that is set, and then waits, unless it returns an error.
func (s *Store) lock(ctx context.Context, name, file string, how int, waiting func() error) (*os.File, error) {
	return waitLock(ctx, filepath.Join(s.generations(name), file), how, waiting)
}

// waitLock locks a file as lock does.
func waitLock(ctx context.Context, path string, how int, waiting func() error) (*os.File, error) {
	for tries := 0; ; tries++ {
		lock, err := tryLock(path, how)
		if lock != nil || err != nil {
			return lock, err
		}
		if tries == 0 && waiting != nil {
			if err := waiting(); err != nil {
				return nil, err
			}
		}
		// Not a lock that waits in the kernel: ctx could not end that.
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lock %s: %w", path, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tryLock returns nil without an error if another one has the lock.
func tryLock(path string, how int) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // somebody removed the directory just now
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), how|unix.LOCK_NB)
	if err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// forget removes lock files: what was locked must still be what others find.
	locked, err := lock.Stat()
	if err == nil {
		if found, err := os.Stat(path); err == nil && os.SameFile(locked, found) {
			return lock, nil
		}
	}
	lock.Close()
	return nil, err
}
