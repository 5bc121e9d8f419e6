// Package cache keeps the caches of jobs within bounds.
//
//	.cache/SERVER/PROJECT/KIND       a cache, which machines bind; its content is hostile
//	.cache/SERVER/PROJECT/KIND.used  its time of modification is when a job last began to use
//	                                 the cache; its content is the cache's size since then,
//	                                 empty until it is measured
//	.cache/.trash/                   caches that are being deleted
//
// The directory of a project is the lock of its caches. prepare holds a shared lock from before
// it looks for the cache until the machine is on record. A process that removes something holds
// an exclusive lock. No job can reach the directory.
package cache

import (
	"context"
	"crypto/rand"
	"errors"
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
	// Max limits all caches together, ProjectMax each cache, in bytes; math.MaxUint64 means no
	// limit.
	Max, ProjectMax uint64
	// InUse lists the caches that machines on record have bound, by their directories.
	InUse func() ([]string, error)
}

// Hold returns the directory of a cache, and creates it if it does not exist. The cache is not
// removed until release is called, and after that as long as InUse lists it. release may be called
// more than once.
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

// use is what is known of a cache: when a job last began to use it, and its size since then, in
// bytes.
type use struct {
	at    time.Time
	size  uint64
	known bool // whether size is known
}

// never is the time of use of a cache without a note of it. Its size may be noted later, in a
// file with this time, so that the cache stays the oldest; so it must be a time that a file can
// have.
var never = time.Unix(0, 0)

// readUse reads what is known of a cache. If there is no note, because an older version of the
// program wrote none or a power cut destroyed it, the cache counts as the oldest.
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

// lockIdle locks a cache if it is not in use and was not used after since was read. It returns nil
// without an error if the cache is, or was.
func (s Store) lockIdle(path string, since use) (*os.File, error) {
	held, err := lock.TryDirectory(filepath.Dir(path), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// A prepare that held the lock before us has its machine on record by now.
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

// throwAway moves a locked cache to the trash and returns its path there. A cache that cannot be
// moved is deleted where it is; then bin is empty.
func (s Store) throwAway(ctx context.Context, path string) (bin string, err error) {
	if err := os.MkdirAll(s.trash(), 0o700); err != nil {
		return "", err
	}
	// The note goes first. After a kill in between, the cache counts as the oldest, and the next
	// removal takes it.
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

// name is the path of a cache below the directory of all caches, for messages.
func (s Store) name(path string) string {
	name, err := filepath.Rel(s.Dir, path)
	if err != nil {
		return path
	}
	return name
}

// mb is an amount of bytes, for messages.
