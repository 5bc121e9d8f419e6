// Package cache keeps the caches of jobs within bounds.
//
//	.cache/SERVER/PROJECT/KIND       what machines have bound: a job's, and hostile
//	.cache/SERVER/PROJECT/KIND.used  when a job used it last (its time of modification),
//	                                 and its size since, once that is known
//	.cache/.trash/                   what is being deleted
//
// The directory of a project is the lock of its caches: shared from before a job
// looks for its cache until its machine is on record, exclusive for whoever takes
// something away. No job can reach it.
package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// Store is the caches of one state directory.
type Store struct {
	// Dir holds the caches.
	Dir string
	// Max bounds all of them together, ProjectMax each one, in bytes;
	// math.MaxUint64 is no bound.
	Max, ProjectMax uint64
	// InUse lists the directories that machines on record have bound.
	InUse func() ([]string, error)
}

// Hold returns the directory of a cache, which is made where there is none. It
// stays until release is called, and after that as long as InUse names it.
// release may be called again.
func (s Store) Hold(ctx context.Context, key string) (path string, release func(), err error) {
	path = filepath.Join(s.Dir, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", nil, err
	}
	held, err := lock.Directory(ctx, filepath.Dir(path), lock.Shared)
	if err != nil {
		return "", nil, err
	}
	release = func() { _ = held.Close() }
	if err = os.Mkdir(path, 0o755); errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err == nil {
		fault.Here("cache: directory made")
		err = writeUse(path, use{at: time.Now()})
	}
	if err != nil {
		release()
		return "", nil, err
	}
	return path, release, nil
}

// use is what is known of a cache's use: when a job was the last to begin with
// it, and its size since then.
type use struct {
	at    time.Time
	size  uint64
	known bool // the size
}

// never is when a cache was used of which nobody noted that: a time that a file
// can have, so that it stays the oldest when its size is noted.
var never = time.Unix(0, 0)

// readUse reads what is known. Of a cache from a build that noted nothing, or
// whose note a power cut took, that is nothing: it is the oldest.
func readUse(path string) (use, error) {
	info, err := os.Lstat(path + ".used")
	if errors.Is(err, fs.ErrNotExist) {
		return use{at: never}, nil
	}
	if err != nil {
		return use{}, err
	}
	text, err := os.ReadFile(path + ".used")
	if err != nil {
		return use{}, err
	}
	u := use{at: info.ModTime()}
	if size, err := strconv.ParseUint(string(text), 10, 64); err == nil {
		u.size, u.known = size, true
	}
	return u, nil
}

func writeUse(path string, u use) error {
	var text []byte
	if u.known {
		text = strconv.AppendUint(nil, u.size, 10)
	}
	if err := os.WriteFile(path+".used", text, 0o600); err != nil {
		return err
	}
	fault.Here("cache: use written, but not when")
	return os.Chtimes(path+".used", u.at, u.at)
}

// lockIdle locks a cache that nobody uses, nor has since it was looked at. nil
// without an error is that somebody does, or did.
func (s Store) lockIdle(path string, since use) (*os.File, error) {
	held, err := lock.TryDirectory(filepath.Dir(path), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Who held it before the lock was ours is on record by now.
	inUse, err := s.InUse()
	if err == nil && !slices.Contains(inUse, path) {
		var now use
		if now, err = readUse(path); err == nil && now.at.Equal(since.at) {
			return held, nil
		}
	}
	held.Close()
	return nil, err
}

func (s Store) trash() string { return filepath.Join(s.Dir, ".trash") }

// throwAway moves a locked cache out of the way, and returns where it waits for
// its deletion. What cannot be moved is deleted where it is.
func (s Store) throwAway(ctx context.Context, path string) (bin string, err error) {
	if err := os.MkdirAll(s.trash(), 0o700); err != nil {
		return "", err
	}
	// First, so that a kill in between leaves a cache that is the next to go.
	if err := os.Remove(path + ".used"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	fault.Here("cache: its last use forgotten")
	bin = filepath.Join(s.trash(), rand.Text()[:8])
	if os.Rename(path, bin) == nil {
		fault.Here("cache: moved to the trash")
		return bin, nil
	}
	return "", storage.Remove(ctx, path)
}

// name is the path of a cache for people, below the directory of all caches.
func (s Store) name(path string) string {
	name, err := filepath.Rel(s.Dir, path)
	if err != nil {
		return path
	}
	return name
}

// mb is an amount of bytes for people.
func mb(bytes uint64) string { return fmt.Sprintf("%d MB", bytes/1e6) }
