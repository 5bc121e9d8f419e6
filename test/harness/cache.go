package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// cacheDir is where trees, images and running labs are kept.
func cacheDir() (string, error) {
	if dir := os.Getenv("NSPAWN_RUNNER_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache: set NSPAWN_RUNNER_CACHE to a directory: %w", err)
	}
	return filepath.Join(dir, "nspawn-runner"), nil
}

// entry is one cached thing, KIND-HASH in the cache. Its directory is locked:
// exclusively to build or remove what is in there, shared to use it.
type entry struct {
	dir  string
	lock *os.File
}

// inUse keeps the shared locks of the entries this process uses open, for as
// long as it lives.
var inUse sync.Map

// cached is the path of the thing that build makes. It is built only once, in
// a place aside, so that a build that is killed leaves nothing that looks
// complete. Things of the same kind with another hash are removed, except
// where they are in use.
func cached(ctx context.Context, kind, hash string, build func(aside string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	e := entry{dir: filepath.Join(cache, kind+"-"+hash)}
	for {
		if err := e.acquire(ctx, syscall.LOCK_SH); err != nil {
			return "", err
		}
		if _, err := os.Stat(e.done()); err == nil {
			inUse.Store(e.lock, true)
			return e.done(), nil
		}
		e.lock.Close()
		if err := e.acquire(ctx, syscall.LOCK_EX); err != nil {
			return "", err
		}
		err := e.build(build)
		e.lock.Close()
		if err != nil {
			return "", fmt.Errorf("cache: on %s: %w", e.dir, err)
		}
		removeOthers(e.dir, kind)
	}
}

func (e *entry) done() string  { return filepath.Join(e.dir, "done") }
func (e *entry) aside() string { return filepath.Join(e.dir, "aside") }

// acquire locks the entry's directory, which it makes if needed.
func (e *entry) acquire(ctx context.Context, how int) error {
	for {
		if err := os.MkdirAll(e.dir, 0o755); err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		lock, err := lockDir(e.dir, how)
		if err == nil {
			e.lock = lock
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cache: lock %s: %w", e.dir, err)
		}
		// flock cannot be cancelled, so it is asked again and again.
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("cache: wait for %s: %w", e.dir, err)
		}
	}
}

// build makes the entry's thing, unless another process did while this one
// waited for the lock.
func (e *entry) build(build func(aside string) error) error {
	if _, err := os.Stat(e.done()); err == nil {
		return nil
	}
	if err := os.RemoveAll(e.aside()); err != nil {
		return err
	}
	err := os.Mkdir(e.aside(), 0o755)
	if err == nil {
		err = build(e.aside())
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(e.aside()))
	}
	return os.Rename(e.aside(), e.done())
}

// removeOthers removes the entries of a kind other than the one at keep. One
// that is in use, or resists, is left for the next time.
func removeOthers(keep, kind string) {
	entries, _ := filepath.Glob(filepath.Join(filepath.Dir(keep), kind+"-*"))
	for _, dir := range entries {
		if dir == keep {
			continue
		}
		lock, err := lockDir(dir, syscall.LOCK_EX)
		if err != nil {
			continue
		}
		// Renamed first, or a removal that is killed leaves half of a thing
		// that looks complete.
		e := entry{dir: dir}
		if os.RemoveAll(e.aside()) == nil {
			_ = os.Rename(e.done(), e.aside())
			_ = os.RemoveAll(dir)
		}
		lock.Close()
	}
}

// lockDir locks a directory without waiting, and makes sure that what it
// locked is still what its path names.
func lockDir(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	locked, err := f.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = os.Stat(dir); err == nil && !os.SameFile(locked, named) {
			err = os.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// pause sleeps, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
