package lock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAnExclusiveLockExcludesAllAndSharedOnesOnlyThat(t *testing.T) {
	dir := t.TempDir()
	for _, try := range []func(Mode) (*os.File, error){
		func(mode Mode) (*os.File, error) { return TryDirectory(dir, mode) },
		func(mode Mode) (*os.File, error) { return TryFile(filepath.Join(dir, "made/lock"), mode) },
	} {
		first := must(t)(try(Shared))
		second := must(t)(try(Shared))
		if _, err := try(Exclusive); !errors.Is(err, ErrBusy) {
			t.Errorf("beside two shared locks: %v", err)
		}
		first.Close()
		second.Close()
		alone := must(t)(try(Exclusive))
		if _, err := try(Shared); !errors.Is(err, ErrBusy) {
			t.Errorf("beside an exclusive lock: %v", err)
		}
		alone.Close()
	}
}

func TestAWaitEndsWithTheLockOrTheContext(t *testing.T) {
	dir := t.TempDir()
	held := must(t)(TryDirectory(dir, Exclusive))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("canceled")
	ended := make(chan error)
	go func() {
		_, err := Directory(ctx, dir, Exclusive)
		ended <- err
	}()
	cancel(why)
	if err := <-ended; !errors.Is(err, why) {
		t.Errorf("a wait that was canceled ended with %v", err)
	}
	go func() {
		waited, err := Directory(t.Context(), dir, Exclusive)
		if err == nil {
			waited.Close()
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(3 * Pause):
	}
	held.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestALockOfWhatIsNotThereAnyMoreIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine")
	if _, err := TryDirectory(path, Exclusive); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a directory that is not there: %v", err)
	}
	makeDir(t, path)
	gone := must(t)(os.Open(path))
	if err := os.Rename(path, path+".trash"); err != nil {
		t.Fatal(err)
	}
	makeDir(t, path)
	if _, err := take(gone, Exclusive); !errors.Is(err, ErrBusy) {
		t.Errorf("of one whose name another one has: %v", err)
	}

	held := must(t)(TryDirectory(path, Exclusive))
	ended := make(chan error)
	go func() {
		_, err := Directory(t.Context(), path, Exclusive)
		ended <- err
	}()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	held.Close()
	if err := <-ended; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of one that went meanwhile: %v", err)
	}
}

func TestALinkIsNotLocked(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := TryDirectory(link, Exclusive); err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}

func TestToAskWhetherAFileIsLockedMakesNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if IsHeld(path) {
		t.Error("a file that is not there is locked")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	shared := must(t)(TryFile(path, Shared))
	if IsHeld(path) {
		t.Error("a shared lock counts as an exclusive one")
	}
	shared.Close()
	alone := must(t)(TryFile(path, Exclusive))
	if !IsHeld(path) {
		t.Error("an exclusive lock does not count")
	}
	alone.Close()
}

func makeDir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T) func(*os.File, error) *os.File {
	return func(file *os.File, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
}
