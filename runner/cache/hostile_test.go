package cache

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLinksOutOfACacheLeadNowhere(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 2*mib)
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.MkdirAll(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "file"), make([]byte, 9*mib), 0o600))
	path := s.job(t, "a/1/protected", 0, "one", "two")
	must(t, os.Symlink(outside, filepath.Join(path, "link")))
	must(t, os.Symlink("/", filepath.Join(path, "root")))
	must(t, os.Symlink(filepath.Join(outside, "file"), filepath.Join(path, "file")))
	must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) != 1 || !strings.Contains(left[0].Why, "it takes 2 MiB") {
		t.Errorf("too much is %+v, %v", left, err)
	}
	s.prunes(t, "a/1/protected/fifo a/1/protected/file a/1/protected/link a/1/protected/root a/1/protected/two")
	if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
		t.Error(err)
	}
}

func TestADirectoryThatBecomesALinkAfterItWasCountedLeadsNowhere(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, mib)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "one"), nil, 0o600))
	path := s.job(t, "a/1/protected", 0, "dir/one", "new")
	held, err := measure(t.Context(), path)
	must(t, err)
	use, err := readUse(path)
	must(t, err)
	use.size = held.size
	e := cached{path, use}.shrink(held, mib)
	if len(e.files) == 0 {
		t.Fatalf("%+v", e)
	}
	must(t, os.RemoveAll(filepath.Join(path, "dir")))
	must(t, os.Symlink(outside, filepath.Join(path, "dir")))
	must(t, s.evict(t.Context(), e))
	if _, err := os.Stat(filepath.Join(outside, "one")); err != nil {
		t.Error(err)
	}
}

func TestTreesWithoutContentCountAndGo(t *testing.T) {
	maxFiles = 500
	t.Cleanup(func() { maxFiles = 100_000 })
	for name, fill := range map[string]func(dir string) error{
		"a thousand empty files": func(dir string) error {
			for i := range 1000 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"a thousand empty directories": func(dir string) error {
			for i := range 1000 {
				if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0); err != nil {
					return err
				}
			}
			return nil
		},
		"deeper than a path may be long": func(dir string) error {
			at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
			for range 1000 {
				if err = unix.Mkdirat(at, "directory", 0o700); err != nil {
					return err
				}
				next, err := unix.Openat(at, "directory", unix.O_PATH|unix.O_CLOEXEC, 0)
				unix.Close(at)
				if at = next; err != nil {
					return err
				}
			}
			unix.Close(at)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := testStore(t, math.MaxUint64, 3*mib)
			must(t, fill(s.job(t, "a/1/protected", 0)))
			s.job(t, "a/2/protected", 0, "stays")
			s.prunes(t, "a/2/protected/stays")
		})
	}
}

// long is the name of a file or directory as long as it can be.
func long(n int) string { return fmt.Sprintf("%0255d", n) }

func TestLongNamesTakeBoundedMemory(t *testing.T) {
	// ext4 makes so many files for minutes where as many were removed just before.
	t.Setenv("TMPDIR", "/dev/shm")
	s, _ := testStore(t, math.MaxUint64, 4*mib)
	path := s.job(t, "a/1/protected", 0)
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	for range maxDepth - 1 {
		must(t, err)
		must(t, unix.Mkdirat(at, long(0), 0o700))
		above := at
		at, err = unix.Openat(at, long(0), unix.O_PATH|unix.O_CLOEXEC, 0)
		unix.Close(above)
	}
	must(t, err)
	for i := range 5000 {
		must(t, unix.Mknodat(at, long(i), unix.S_IFREG|0o600, 0))
	}
	unix.Close(at)

	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	held, err := measure(t.Context(), path)
	must(t, err)
	if took := used() - before; len(held.files) != 5000 || took > 8*mib {
		t.Errorf("%d files take %d bytes of memory", len(held.files), took)
	}
	maxNames = mib
	t.Cleanup(func() { maxNames = 16 << 20 })
	if held, err = measure(t.Context(), path); err != nil || !held.tooMany || held.files != nil || held.size < 5000*leastCost {
		t.Errorf("more names than are kept: %d files, of %d bytes, %v", len(held.files), held.size, err)
	}
	maxNames = 16 << 20
	must(t, s.Prune(t.Context()))
	if held, err = measure(t.Context(), path); err != nil || len(held.files) == 0 || held.size > 4*mib {
		t.Errorf("%d files of %d bytes are left, %v", len(held.files), held.size, err)
	}
}

func TestNamesAndTimesThatLieDoNoHarm(t *testing.T) {
	s, _ := testStore(t, 5*mib, 2*mib)
	path := s.job(t, "a/1/protected", 0, "a\nb\xff\x1b[2J", " ", "--help")
	future := time.Now().AddDate(100, 0, 0)
	must(t, os.Chtimes(filepath.Join(path, " "), future, future))
	must(t, os.Chmod(path, 0))
	must(t, os.Chtimes(path, future, future))
	s.prunes(t, "a/1/protected/  a/1/protected/--help")
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("%+v, %v", left, err)
	}
}

func TestFilesThatResistGoWithTheirCache(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64, 2*mib)
	path := s.job(t, "a/1/protected", 0, "one", "two", "three")
	flags := func(word string) { _ = exec.Command("chattr", word, filepath.Join(path, "one")).Run() }
	t.Cleanup(func() { flags("-i") })
	flags("+i")
	if os.Remove(filepath.Join(path, "one")) == nil {
		t.Skip("no immutable files here")
	}
	s.prunes(t, "")
}

func TestWhatAKilledPruneLeftInTheTrashGoes(t *testing.T) {
	s, _ := testStore(t, math.MaxUint64-1, math.MaxUint64)
	must(t, os.MkdirAll(filepath.Join(s.trash(), "half", "of", "it"), 0o700))
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) != 1 || left[0].What != "trash" {
		t.Errorf("%+v, %v", left, err)
	}
	s.prunes(t, "")
}
