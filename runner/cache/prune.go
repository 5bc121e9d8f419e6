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
	"nspawn-runner/runner/storage"
)

// Prune takes away what is too much, and notes the sizes of caches that were
// used. Where none was, it takes a few system calls a cache.
func (s Store) Prune(ctx context.Context) error {
	idle, err := s.look(ctx)
	if err != nil {
		return err
	}
	var failed error
	for i := range idle {
		if c := idle[i]; !c.known && !c.tooDeep {
			failed = errors.Join(failed, s.note(ctx, &idle[i]))
		}
	}
	excess, err := s.excess(ctx, idle)
	failed = errors.Join(failed, err)
	for _, e := range excess {
		failed = errors.Join(failed, s.evict(ctx, e))
	}
	left, err := s.unfinished()
	failed = errors.Join(failed, err)
	for _, path := range left {
		failed = errors.Join(failed, storage.Remove(ctx, path))
	}
	return failed
}

// Leftovers lists what Prune takes away. It changes nothing.
func (s Store) Leftovers(ctx context.Context) ([]storage.Leftover, error) {
	idle, failed := s.look(ctx)
	excess, err := s.excess(ctx, idle)
	failed = errors.Join(failed, err)
	var all []storage.Leftover
	for _, e := range excess {
		all = append(all, storage.Leftover{
			What: "cache", Path: e.path, Why: e.why,
			Remove: func(ctx context.Context) error { return s.evict(ctx, e) },
		})
	}
	left, err := s.unfinished()
	for _, path := range left {
		all = append(all, storage.Leftover{
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
	*content // nil as long as nobody looked
}

// look lists the caches that nobody uses, and how big they are. One that is in
// use is left out: it may grow while it is counted, and must stay anyway.
func (s Store) look(ctx context.Context) ([]cached, error) {
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
		c := cached{path: path}
		c.use, err = readUse(path)
		if err == nil {
			err = c.measureIf(ctx, !c.known)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // another one threw it away
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		idle = append(idle, c)
	}
	return idle, failed
}

// measureIf fills in what a cache holds, if that is wanted and not known yet.
func (c *cached) measureIf(ctx context.Context, wanted bool) error {
	if !wanted || c.content != nil {
		return nil
	}
	content, err := measure(ctx, c.path)
	if err != nil {
		return err
	}
	c.content, c.use.size = &content, content.size
	return nil
}

// note keeps the size of a cache until its next use.
func (s Store) note(ctx context.Context, c *cached) error {
	lock, err := s.lockIdle(ctx, c.path, c.use)
	if lock == nil || err != nil {
		return err
	}
	defer lock.Close()
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

// excess lists what goes: of caches that are too big the files that were not
// used for the longest time; then, while all take too much, the caches that were
// not.
func (s Store) excess(ctx context.Context, idle []cached) ([]eviction, error) {
	var all []eviction
	var rest []cached
	var total uint64
	var failed error
	for _, c := range idle {
		if err := c.measureIf(ctx, c.use.size > s.ProjectMax); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if c.use.size > s.ProjectMax || c.content != nil && c.tooDeep {
			e := c.shrink(s.ProjectMax)
			all = append(all, e)
			if e.all {
				continue
			}
			for _, f := range e.files {
				c.use.size -= f.size
			}
		}
		rest = append(rest, c)
		total += c.use.size
	}
	slices.SortStableFunc(rest, func(a, b cached) int { return a.at.Compare(b.at) })
	before := total
	for _, c := range rest {
		if total <= s.Max {
			break
		}
		why := fmt.Sprintf("it was not used for %s, and all caches take %s, more than %s (cache_max)", since(c.at), mb(before), mb(s.Max))
		all = append(all, eviction{cached: c, all: true, why: why})
		total -= c.use.size
	}
	return all, failed
}

// shrink picks the files that go so that the rest is within a bound.
func (c cached) shrink(bound uint64) eviction {
	e := eviction{cached: c, why: fmt.Sprintf("it takes %s, more than %s (cache_max_project)", mb(c.use.size), mb(bound))}
	if c.tooDeep {
		e.all, e.why = true, fmt.Sprintf("it cannot be counted: it is deeper than %d directories", maxDepth)
		return e
	}
	size := c.use.size
	byUse := slices.SortedFunc(slices.Values(c.content.files), func(a, b file) int { return cmp.Compare(a.used, b.used) })
	for _, f := range byUse {
		if size <= bound {
			break
		}
		e.files = append(e.files, f)
		size -= f.size
	}
	switch {
	case c.tooMany:
		e.all, e.why = true, e.why+fmt.Sprintf(", and has more than %d files", maxFiles)
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

// While something is taken away a lock is held for holdMost, and then not for
// holdPause, in which a job that waits for it gets it.
const (
	holdMost  = 50 * time.Millisecond
	holdPause = 10 * time.Millisecond
)

// evict takes something away, unless somebody used the cache since it was looked
// at. What is moved away is deleted without the lock.
func (s Store) evict(ctx context.Context, e eviction) error {
	bin, err := s.evictLocked(ctx, &e)
	for err == nil && len(e.files) > 0 && ctx.Err() == nil {
		time.Sleep(holdPause)
		bin, err = s.evictLocked(ctx, &e)
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
	lock, err := s.lockIdle(ctx, e.path, e.use)
	if lock == nil || err != nil {
		e.files = nil
		return "", err
	}
	defer lock.Close()
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
		f := e.files[0]
		if err := root.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		e.files, e.use.size = e.files[1:], e.use.size-f.size
		for dir := filepath.Dir(f.path); dir != "." && root.Remove(dir) == nil; {
			dir = filepath.Dir(dir)
		}
	}
	return nil
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
