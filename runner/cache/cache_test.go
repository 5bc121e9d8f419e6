package cache

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nspawn-runner/runner/fault"
)

const mib = 1 << 20

// testStore is a store whose caches in use are those in the list returned.
func testStore(t *testing.T, max, projectMax uint64) (Store, *[]string) {
	used := &[]string{}
	return Store{
		Dir: filepath.Join(t.TempDir(), ".cache"), Max: max, ProjectMax: projectMax,
		InUse: func() ([]string, error) { return *used, nil },
	}, used
}

// job is a job that used a cache some hours ago, and left these files in it, of a
// MiB each, the oldest first.
func (s Store) job(t *testing.T, key string, hoursAgo int, files ...string) string {
	t.Helper()
	path, release, err := s.Hold(t.Context(), key)
	must(t, err)
	defer release()
	for i, name := range files {
		at := time.Now().Add(time.Duration(i-100) * time.Hour)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(path, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(path, name), make([]byte, mib), 0o600))
		must(t, os.Chtimes(filepath.Join(path, name), at, at))
	}
	at := time.Now().Add(-time.Duration(hoursAgo) * time.Hour)
	must(t, os.Chtimes(path+".used", at, at))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list is what caches hold, files and empty directories.
func (s Store) list(t *testing.T) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(s.Dir, func(path string, entry os.DirEntry, err error) error {
		name, _ := filepath.Rel(s.Dir, path)
		if err == nil && entry.IsDir() {
			if inside, err := os.ReadDir(path); err != nil || len(inside) > 0 {
				return err
			}
		}
		if strings.Count(name, "/") > 2 {
			all = append(all, name)
		}
		return err
	}))
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (s Store) prunes(t *testing.T, want string) {
	t.Helper()
	must(t, s.Prune(t.Context()))
	if got := s.list(t); got != want {
		t.Errorf("there is %q, want %q", got, want)
	}
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("after it, too much is %+v, %v", left, err)
	}
}

func TestTheFilesOfAFullCacheThatWereNotUsedForTheLongestTimeGo(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 3*mib)
	s.job(t, "a/1/protected", 0, "group/oldest/cache.zip", "group/read/cache.zip", "group/new/cache.zip", "group/newest/cache.zip")
	s.job(t, "a/1/unprotected", 0, "x/cache.zip", "y/cache.zip")
	read := filepath.Join(s.Dir, "a/1/protected/group/read/cache.zip")
	info, err := os.Stat(read)
	must(t, err)
	must(t, os.Chtimes(read, time.Now(), info.ModTime()))
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) != 1 || left[0].What != "cache" || !strings.Contains(left[0].Why, "(cache_max_project); of 4 files the 2 that") {
		t.Errorf("too much is %+v, %v", left, err)
	}
	// Two: the directories of four count too.
	s.prunes(t, "a/1/protected/group/newest/cache.zip a/1/protected/group/read/cache.zip a/1/unprotected/x/cache.zip a/1/unprotected/y/cache.zip")
}

func TestACacheWhoseUseNobodyNotedStaysTheOldestWhenItIsCounted(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 3*mib)
	s.job(t, "a/1/protected", 9, "one", "two")
	unknown := s.job(t, "a/2/protected", 0, "one", "two", "three", "four")
	must(t, os.Remove(unknown+".used"))
	s.prunes(t, "a/1/protected/one a/1/protected/two a/2/protected/four a/2/protected/three a/2/protected/two")
	s.Max = 3 * mib
	s.prunes(t, "a/1/protected/one a/1/protected/two")
}

func TestTheCachesThatWereNotUsedForTheLongestTimeGo(t *testing.T) {
	s, _ := testStore(t, 5*mib, math.MaxUint64)
	s.job(t, "a/1/protected", 2, "one", "two")
	s.job(t, "a/2/protected", 9, "one", "two")
	s.job(t, "b/1/unprotected", 1, "one", "two")
	s.job(t, "b/2/unprotected", 3, "one")
	s.prunes(t, "a/1/protected/one a/1/protected/two b/1/unprotected/one b/1/unprotected/two b/2/unprotected/one")
	s.Max = 3 * mib
	s.prunes(t, "b/1/unprotected/one b/1/unprotected/two")
	s.Max = 0
	s.prunes(t, "")
}

func TestACacheThatAMachineHasBoundStays(t *testing.T) {
	s, used := testStore(t, 0, 0)
	*used = append(*used, s.job(t, "a/1/protected", 1000, "one", "two"))
	s.job(t, "a/1/unprotected", 0, "one")
	s.prunes(t, "a/1/protected/one a/1/protected/two")
	*used = nil
	s.prunes(t, "")
}

func TestACacheThatAJobIsAboutToBindStays(t *testing.T) {
	s, used := testStore(t, 0, 0)
	path := s.job(t, "a/1/protected", 1, "one")
	// The job begins after gc has looked, and before it removes.
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) != 1 {
		t.Fatalf("%+v, %v", left, err)
	}
	_, release, err := s.Hold(t.Context(), "a/1/protected")
	must(t, err)
	removes := func(what string) {
		t.Helper()
		must(t, left[0].Remove(t.Context()))
		must(t, s.Prune(t.Context()))
		if _, err := os.Stat(filepath.Join(path, "one")); err != nil {
			t.Error(what, ":", err)
		}
	}
	removes("while it is held")
	*used = []string{path}
	release()
	removes("once it is on record")
	*used = nil
	must(t, left[0].Remove(t.Context()))
	if s.list(t) != "a/1/protected/one" {
		t.Error("what was found before its last use decided:", s.list(t))
	}
	s.prunes(t, "")
}

func TestTheSizeIsCountedAfterEachUse(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 2*mib)
	s.job(t, "a/1/protected", 5, "one")
	s.prunes(t, "a/1/protected/one")
	noted, err := os.ReadFile(filepath.Join(s.Dir, "a/1/protected.used"))
	if size, _ := strconv.Atoi(string(noted)); err != nil || size < mib || size > 2*mib {
		t.Errorf("noted is %q, %v", noted, err)
	}
	s.job(t, "a/1/protected", 4, "one", "two", "three")
	s.prunes(t, "a/1/protected/three a/1/protected/two")
}

func TestPruningBesideJobsTakesNothingFromThem(t *testing.T) {
	s, _ := testStore(t, 0, 0)
	var lock sync.Mutex
	bound := map[string]int{}
	s.InUse = func() ([]string, error) {
		lock.Lock()
		defer lock.Unlock()
		var all []string
		for path, n := range bound {
			if n > 0 {
				all = append(all, path)
			}
		}
		return all, nil
	}
	ctx, stop := context.WithCancel(t.Context())
	var pruners, jobs sync.WaitGroup
	for range 3 {
		pruners.Go(func() {
			for ctx.Err() == nil {
				if err := s.Prune(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 6 {
		jobs.Go(func() {
			for n := range 50 {
				path, release, err := s.Hold(t.Context(), "a/"+strconv.Itoa(i%2)+"/protected")
				if err != nil {
					t.Error(err)
					return
				}
				lock.Lock()
				bound[path]++
				lock.Unlock()
				release()
				file := filepath.Join(path, strconv.Itoa(i))
				if err := os.WriteFile(file, []byte(strconv.Itoa(n)), 0o600); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
				lock.Lock()
				bound[path]--
				lock.Unlock()
			}
		})
	}
	jobs.Wait()
	stop()
	pruners.Wait()
	s.prunes(t, "")
}

// manyFiles are more than a prune removes without letting go of its lock.
const manyFiles = 5000

// fill makes so many files in a cache.
func fill(t *testing.T, path string) {
	t.Helper()
	for i := range manyFiles {
		must(t, os.WriteFile(filepath.Join(path, strconv.Itoa(i)), nil, 0o600))
	}
	most := holdMost
	holdMost = 2 * time.Millisecond
	t.Cleanup(func() { holdMost = most })
}

func TestAPruneThatIsStoppedSaysSo(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 2*mib)
	path := s.job(t, "a/1/protected", 0)
	fill(t, path)
	stopped := errors.New("stopped")
	ctx, stop := context.WithCancelCause(t.Context())
	fault.Hook = func(mark string) {
		if mark == "cache: some files removed" {
			stop(stopped)
		}
	}
	defer func() { fault.Hook = nil }()
	err := s.Prune(ctx)
	entries, _ := os.ReadDir(path)
	if len(entries) <= 512 || !errors.Is(err, stopped) {
		t.Errorf("%d files stay: %v", len(entries), err)
	}
}

func TestAJobDoesNotWaitForACacheOfManyFiles(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 2*mib)
	path := s.job(t, "a/1/protected", 0)
	fill(t, path)
	pruned := make(chan error, 1)
	go func() { pruned <- s.Prune(t.Context()) }()
	count := func() int {
		entries, err := os.ReadDir(path)
		must(t, err)
		return len(entries)
	}
	for count() == manyFiles { // until it begins
		select {
		case err := <-pruned:
			t.Fatal("nothing went: ", err)
		case <-time.After(time.Millisecond):
		}
	}
	_, release, err := s.Hold(t.Context(), "a/1/protected")
	must(t, err)
	held := count()
	must(t, <-pruned)
	if now := count(); now != held || held <= 512 {
		t.Errorf("%d files when the job had its cache, %d later", held, now)
	}
	release()
	must(t, s.Prune(t.Context()))
	if now := count(); now == 0 || now > 512 {
		t.Errorf("%d files stay", now)
	}
}
