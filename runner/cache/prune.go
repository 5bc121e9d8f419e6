package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/size"
	"nspawn-runner/runner/storage"
)

// Prune takes away what is too much, and notes the sizes of caches that were
// used. Where none was, it takes a few system calls a cache.
func (s Store) Prune(ctx context.Context) error {
	failed := s.excess(ctx, s.note, func(e eviction) error { return s.evict(ctx, e) })
	left, err := s.unfinished()
	failed = errors.Join(failed, err)
	for _, path := range left {
		failed = errors.Join(failed, storage.Remove(ctx, path))
	}
	return failed
}

// Leftovers lists what Prune takes away. It changes nothing.
func (s Store) Leftovers(ctx context.Context) ([]leftover.Item, error) {
	var all []leftover.Item
	unnoted := func(context.Context, cached) error { return nil }
	failed := s.excess(ctx, unnoted, func(e eviction) error {
		evict := func(ctx context.Context) error { return s.evict(ctx, e) }
		if c := e.cached; !e.all { // its files are found again, not kept until then
			evict = func(ctx context.Context) error {
				_, err := s.trim(ctx, &c, unnoted, func(e eviction) error { return s.evict(ctx, e) })
				return err
			}
		}
		all = append(all, leftover.Item{What: "cache", Path: e.path, Why: e.why, Remove: evict})
		return nil
	})
	left, err := s.unfinished()
	for _, path := range left {
		all = append(all, leftover.Item{
			What: "trash", Path: path, Why: "its deletion did not come to an end",
			Remove: func(ctx context.Context) error { return storage.Remove(ctx, path) },
		})
	}
	return all, errors.Join(failed, err)
}

// cached is a cache that nobody uses.
type cached struct {
	path string
	use
}

// look lists the caches that nobody uses. One that is in use is left out: it may grow
// while it is counted, and must stay anyway.
func (s Store) look() ([]cached, error) {
	if s.Max == math.MaxUint64 && s.ProjectMax == math.MaxUint64 {
		return nil, nil
	}
	paths, err := fs.Glob(os.DirFS(s.Dir), "[^.]*/*/*")
	if err != nil {
		return nil, err
	}
	inUse, err := s.InUse()
	if err != nil {
		return nil, err
	}
	var idle []cached
	var failed error
	for _, path := range paths {
		path = filepath.Join(s.Dir, path)
		if info, err := os.Lstat(path); err != nil || !info.IsDir() || slices.Contains(inUse, path) {
			continue
		}
		use, err := readUse(path)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		idle = append(idle, cached{path, use})
	}
	return idle, failed
}

// Size is how many bytes the caches take that no job uses, as far as that was measured: at
// the end of the last job of each. Without limits nothing is measured, so it is not known.
func (s Store) Size() (total uint64, known bool, err error) {
	if s.Max == math.MaxUint64 && s.ProjectMax == math.MaxUint64 {
		return 0, false, nil
	}
	idle, err := s.look()
	for _, c := range idle {
		total += c.use.size
	}
	return total, err == nil, err
}

// note keeps the size of a cache until its next use.
func (s Store) note(ctx context.Context, c cached) error {
	held, err := s.lockIdle(c.path, c.use)
	if held == nil || err != nil {
		return err
	}
	defer held.Close()
	c.known = true
	return writeUse(c.path, c.use)
}

// eviction is a cache of which something goes, and why.
type eviction struct {
	cached
	files []file // that go, unless all of it does
	all   bool
	why   string
}

// excess finds what goes: of caches that are too big the files that were not
// used for the longest time; then, while all take too much, the caches that were
// not. Each cache is dealt with before the next is looked at: what it holds takes
// memory.
func (s Store) excess(ctx context.Context, note func(context.Context, cached) error, take func(eviction) error) error {
	idle, failed := s.look()
	var rest []cached
	var total uint64
	for _, c := range idle {
		stays, err := s.trim(ctx, &c, note, take)
		failed = errors.Join(failed, err)
		if stays {
			rest = append(rest, c)
			total += c.use.size
		}
	}
	slices.SortStableFunc(rest, func(a, b cached) int { return a.at.Compare(b.at) })
	before := total
	for _, c := range rest {
		if total <= s.Max {
			break
		}
		why := fmt.Sprintf("it was not used for %s, and all caches take %s, more than %s (cache_max)", since(c.at), size.MiB(before), size.MiB(s.Max))
		failed = errors.Join(failed, take(eviction{cached: c, all: true, why: why}))
		total -= c.use.size
	}
	return failed
}

// trim measures a cache where that is needed, has its size noted, and what is too
// much of it taken. It says whether some of the cache stays, whose size is in c then.
func (s Store) trim(ctx context.Context, c *cached, note func(context.Context, cached) error, take func(eviction) error) (stays bool, err error) {
	if c.known && c.use.size <= s.ProjectMax {
		return true, nil
	}
	held, err := measure(ctx, c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another one threw it away
	}
	if err != nil {
		return false, err
	}
	c.use.size = held.size
	if !c.known && !held.tooDeep {
		err = note(ctx, *c)
	}
	if c.use.size <= s.ProjectMax && !held.tooDeep {
		return true, err
	}
	e := c.shrink(held, s.ProjectMax)
	for _, f := range e.files {
		c.use.size -= f.size
	}
	return !e.all, errors.Join(err, take(e))
}

// shrink picks the files that go so that the rest is within a bound.
func (c cached) shrink(held content, bound uint64) eviction {
	e := eviction{cached: c, why: fmt.Sprintf("it takes %s, more than %s (cache_max_project)", size.MiB(c.use.size), size.MiB(bound))}
	if held.tooDeep {
		e.all, e.why = true, fmt.Sprintf("it cannot be counted: it is deeper than %d directories", maxDepth)
		return e
	}
	size := c.use.size
	byUse := slices.SortedFunc(slices.Values(held.files), func(a, b file) int { return cmp.Compare(a.used, b.used) })
	for _, f := range byUse {
		if size <= bound {
			break
		}
		e.files = append(e.files, f)
		size -= f.size
	}
	// Directory by directory: to come to one of them may take long.
	slices.SortStableFunc(e.files, func(a, b file) int { return cmp.Compare(a.dir.number, b.dir.number) })
	switch {
	case held.tooMany:
		e.all, e.why = true, e.why+", and has more files than can be told apart"
	case size > bound: // by its directories alone
		e.all = true
	default:
		e.why += fmt.Sprintf("; of %d files the %d that were not used for the longest time go", len(byUse), len(e.files))
	}
	return e
}

func since(at time.Time) string {
	if at.Equal(never) {
		return "long"
	}
	return time.Since(at).Round(time.Minute).String()
}

// While something is taken away a lock is held for holdMost, a variable for tests, and then
// not for holdPause, in which a job that waits for it gets it.
var holdMost = 50 * time.Millisecond

const holdPause = 2 * lock.Pause

// evict takes something away, unless somebody used the cache since it was looked
// at. What is moved away is deleted without the lock.
func (s Store) evict(ctx context.Context, e eviction) error {
	bin, err := s.evictLocked(ctx, &e)
	for err == nil && len(e.files) > 0 {
		time.Sleep(holdPause)
		if err = context.Cause(ctx); err == nil {
			bin, err = s.evictLocked(ctx, &e)
		}
	}
	if err == nil && bin != "" {
		err = storage.Remove(ctx, bin)
	}
	if err != nil {
		return fmt.Errorf("cache %s: %w", s.name(e.path), err)
	}
	return nil
}

// evictLocked takes away what it can for holdMost; e.files are those that still
// have to go.
func (s Store) evictLocked(ctx context.Context, e *eviction) (bin string, err error) {
	held, err := s.lockIdle(e.path, e.use)
	if held == nil || err != nil {
		e.files = nil
		return "", err
	}
	defer held.Close()
	if !e.all && e.removeFiles(time.Now().Add(holdMost)) == nil {
		fault.Here("cache: some files removed")
		e.known = true
		return "", writeUse(e.path, e.use)
	}
	e.files = nil // one of them resists: then all goes
	return s.throwAway(ctx, e.path)
}

// removeFiles removes files for some time, and the directories that are empty
// without them.
func (e *eviction) removeFiles(until time.Time) error {
	root, err := os.OpenRoot(e.path)
	if err != nil {
		return err
	}
	defer root.Close()
	for len(e.files) > 0 && time.Now().Before(until) {
		if err := e.removeOfFirst(root, until); err != nil {
			return err
		}
	}
	return nil
}

// removeOfFirst is removeFiles of the directory of the first one.
func (e *eviction) removeOfFirst(root *os.Root, until time.Time) error {
	at := e.files[0].dir
	path := at.path()
	dir, err := root.OpenRoot(path)
	if isGone(err) {
		err = nil
	}
	if err != nil {
		return err
	}
	for len(e.files) > 0 && e.files[0].dir == at && time.Now().Before(until) {
		f := e.files[0]
		if dir != nil {
			if err = dir.Remove(f.name); err != nil && !isGone(err) {
				break
			}
		}
		err = nil
		e.files, e.use.size = e.files[1:], e.use.size-f.size
	}
	if dir != nil {
		dir.Close()
	}
	for ; err == nil && path != "." && root.Remove(path) == nil; path = filepath.Dir(path) {
	}
	return err
}

// unfinished lists what a killed Prune left in the trash.
func (s Store) unfinished() ([]string, error) {
	entries, err := os.ReadDir(s.trash())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the trash of caches: %w", err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, filepath.Join(s.trash(), entry.Name()))
	}
	return all, nil
}
