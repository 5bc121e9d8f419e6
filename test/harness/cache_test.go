package harness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nspawn-runner/runner/lock"
)

// emptyCache gives a test a cache of its own.
func emptyCache(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("NSPAWN_RUNNER_CACHE", dir)
	return dir
}

func fill(aside string) error {
	return os.WriteFile(filepath.Join(aside, "file"), nil, 0o644)
}

func TestABuildThatFailsLeavesNothing(t *testing.T) {
	dir := emptyCache(t)
	broken := errors.New("broken")
	_, err := cached(t.Context(), "kind", "1", func(aside string) error {
		return errors.Join(fill(aside), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("the build ended with %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
		t.Errorf("these are left: %v", left)
	}
}

func TestABuildThatWasKilledIsDoneAgain(t *testing.T) {
	dir := emptyCache(t)
	if err := os.MkdirAll(filepath.Join(dir, "kind-1", "aside", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	done, err := cached(t.Context(), "kind", "1", fill)
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(done, "*")); len(found) != 1 {
		t.Errorf("it holds %v", found)
	}
}

func TestSeveralBuildersBuildOnce(t *testing.T) {
	emptyCache(t)
	var built atomic.Int32
	var builders sync.WaitGroup
	for range 5 {
		builders.Go(func() {
			_, err := cached(t.Context(), "kind", "1", func(aside string) error {
				built.Add(1)
				time.Sleep(50 * time.Millisecond)
				return fill(aside)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	builders.Wait()
	if n := built.Load(); n != 1 {
		t.Errorf("it was built %d times", n)
	}
}

func TestABuildRemovesOldOnesThatNobodyUses(t *testing.T) {
	dir := emptyCache(t)
	used, err := cached(t.Context(), "kind", "used", fill)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"kind-old/done/tree", "kind-half/aside", "other-1/done"} {
		if err := os.MkdirAll(filepath.Join(dir, old), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cached(t.Context(), "kind", "new", fill); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 3 {
		t.Errorf("these are left: %v", left)
	}
	if _, err := os.Stat(filepath.Join(used, "file")); err != nil {
		t.Error(err)
	}
}

func TestWaitingForABuilderCanBeCancelled(t *testing.T) {
	dir := filepath.Join(emptyCache(t), "kind-1")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	held, err := lock.TryDirectory(dir, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := cached(ctx, "kind", "1", fill); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting ended with %v", err)
	}
}
