package cache

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
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
	if err != nil || len(left) != 1 || !strings.Contains(left[0].Why, "it takes 2 MB") {
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
	left, err := s.Leftovers(t.Context())
	if err != nil || len(left) != 1 {
		t.Fatalf("%+v, %v", left, err)
	}
	must(t, os.RemoveAll(filepath.Join(path, "dir")))
	must(t, os.Symlink(outside, filepath.Join(path, "dir")))
	must(t, left[0].Remove(t.Context()))
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
