package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"nspawn-runner/runner/lock"
)

// CacheDir is where trees, images and running labs are kept: what
// NSPAWN_RUNNER_CACHE says, else a directory in the user's cache.
func CacheDir() (string, error) {
	if dir := os.Getenv("NSPAWN_RUNNER_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache: set NSPAWN_RUNNER_CACHE to a directory: %w", err)
	}
	return filepath.Join(dir, "nspawn-runner"), nil
}

// entry is the directory of one cached thing, KIND-HASH in the cache. It is
// locked: exclusively to build or remove what is in there, shared to use it.
type entry string

func (e entry) done() string  { return filepath.Join(string(e), "done") }
func (e entry) aside() string { return filepath.Join(string(e), "aside") }

// inUse keeps the shared locks of the entries this process uses open, for as
// long as it lives.
var inUse sync.Map

// cached is the path of the thing that build makes. It is built only once, in
// a place aside, so that a build that is killed leaves nothing that looks
// complete. Things of the same kind with another hash are removed, except
// where they are in use.
func cached(ctx context.Context, kind, hash string, build func(aside string) error) (path string, err error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	e := entry(filepath.Join(cache, kind+"-"+hash))
	for {
		if err = e.use(ctx); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		err = e.build(build)
		if err == nil {
			removeOthers(e, kind)
		}
		if errors.Is(err, errBusy) {
			err = pause(ctx, 5*time.Millisecond)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("cache: on %s: %w", e, err)
	}
	return e.done(), nil
}

// use locks the entry for the life of this process, if it is complete.
func (e entry) use(ctx context.Context) error {
	held, err := share(ctx, string(e))
	if err != nil {
		return err
	}
	if _, err := os.Stat(e.done()); err != nil {
		held.Close()
		return err
	}
	inUse.Store(held, true)
	return nil
}

// errBusy is the error if another process builds the thing, or looks whether it is there.
var errBusy = errors.New("another process is at it")

// build makes the entry's thing, unless another process did. It does not wait for the lock: the
// other process may be done and use the thing, and then has a lock as long as it lives.
func (e entry) build(build func(aside string) error) error {
	held, err := lock.TryDirectory(string(e), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) || errors.Is(err, fs.ErrNotExist) {
		return errBusy
	}
	if err != nil {
		return err
	}
	defer held.Close()
	if _, err := os.Stat(e.done()); err == nil {
		return nil
	}
	if err := os.RemoveAll(e.aside()); err != nil {
		return err
	}
	err = os.Mkdir(e.aside(), 0o755)
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
func removeOthers(keep entry, kind string) {
	entries, _ := filepath.Glob(filepath.Join(filepath.Dir(string(keep)), kind+"-*"))
	for _, dir := range entries {
		e := entry(dir)
		if e == keep {
			continue
		}
		held, err := lock.TryDirectory(dir, lock.Exclusive)
		if err != nil {
			continue
		}
		// Renamed first, or a removal that is killed leaves half of a thing
		// that looks complete.
		if os.RemoveAll(e.aside()) == nil {
			_ = os.Rename(e.done(), e.aside())
			_ = os.RemoveAll(dir)
		}
		held.Close()
	}
}

// share locks a directory with others, which it makes if needed: another process may remove
// it as soon as it is made.
func share(ctx context.Context, dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		held, err := lock.Directory(ctx, dir, lock.Shared)
		if !errors.Is(err, fs.ErrNotExist) {
			return held, err
		}
	}
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
