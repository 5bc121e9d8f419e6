package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/storage"
)

// wantFailed checks that a first creation published nothing and kept its tree,
// and only that.
func wantFailed(t *testing.T, s *Store, name string) {
	t.Helper()
	root, err := s.Failed(name)
	if err != nil || !exists(filepath.Join(root, "etc/hostname")) {
		t.Errorf("the failed tree is %q, %v", root, err)
	}
	if exists(filepath.Join(s.StateDir, name)) {
		t.Error("it is published")
	}
	trees, err := filepath.Glob(filepath.Join(s.generations(name), "*Z"))
	if err != nil || len(trees) != 0 {
		t.Errorf("there are generations %v, %v", trees, err)
	}
}

// wantNoFailed checks that no tree of a failed build is kept.
func wantNoFailed(t *testing.T, s *Store, name string) {
	t.Helper()
	if root, err := s.Failed(name); err == nil {
		t.Errorf("%s is there", root)
	}
}

// failing makes the playbook of sid fail, and say in its tree which one it was.
func failing(t *testing.T, s *Store, which string) {
	t.Helper()
	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: all\n  fake: echo "+which+" > $1/etc/which; exit 3\n")
	var kept *KeptError
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); !errors.As(err, &kept) {
		t.Fatalf("error is %v", err)
	}
}

func TestOnlyTheLastFailedTreeIsKeptUntilABuildIsWell(t *testing.T) {
	for _, onBtrfs := range []bool{false, true} {
		s, _ := fakeStore(t)
		if onBtrfs {
			mountBtrfs(t, s.StateDir)
		}
		first := create(t, s, "sid")
		for _, which := range []string{"one", "two"} {
			failing(t, s, which)
			wantOnly(t, s, "sid", first)
			root, err := s.Failed("sid")
			if err != nil || read(t, filepath.Join(root, "etc/which")) != which+"\n" {
				t.Errorf("after %s the failed tree is %q, %v", which, root, err)
			}
			if is, err := storage.IsSubvolume(root); is != onBtrfs || err != nil {
				t.Errorf("on btrfs: %v; a subvolume: %v, %v", onBtrfs, is, err)
			}
		}
		if all, err := s.Generations("sid"); err != nil || !slices.Equal(all, []Generation{first}) {
			t.Errorf("generations are %v, %v", all, err)
		}
		wantOnly(t, s, "sid", first, edit(t, s, "sid"))
		wantNoFailed(t, s, "sid")
		if left, err := os.ReadDir(filepath.Join(s.StateDir, ".trash")); err != nil || len(left) != 0 {
			t.Errorf("the trash has %v, %v", left, err)
		}
	}
}

func TestAGenerationThatFailsItsTestIsNotPublished(t *testing.T) {
	s, _ := fakeStore(t)
	broken := errors.New("it ended with exit code 3")
	var tested []Generation
	s.Test = func(_ context.Context, image string, generation Generation, log io.Writer) error {
		tested = append(tested, generation)
		fmt.Fprint(log, "first\nsecond\n\nthird\nlast")
		return broken
	}
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	var step *build.StepError
	if !errors.As(err, &step) || !errors.Is(err, broken) {
		t.Fatalf("error is %v", err)
	}
	want := "image sid: test: it ended with exit code 3: second; third; last (full log: " + step.Log + "); 'nspawn-runner chroot-login --failed sid' opens its tree"
	if err.Error() != want {
		t.Errorf("error is\n%v\nnot\n%s", err, want)
	}
	if len(tested) != 1 || !strings.HasPrefix(tested[0].Path, s.generations("sid")+"/2") {
		t.Errorf("tested were %v", tested)
	}
	wantFailed(t, s, "sid")

	s.Test = func(_ context.Context, _ string, generation Generation, _ io.Writer) error {
		if exists(filepath.Join(s.StateDir, "sid")) {
			t.Error("it was published before its test")
		}
		return Check(generation.Path)
	}
	wantOnly(t, s, "sid", create(t, s, "sid"))
	wantNoFailed(t, s, "sid")
}

// What earlier steps printed explains nothing of a machine that does not boot.
func TestAFailedTestIsExplainedByItsOwnOutput(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: echo a line of the playbook\n")
	s.Test = func(context.Context, string, Generation, io.Writer) error { return errors.New("it did not come up") }
	if _, err := s.Create(t.Context(), "sid", CreateOptions{}); err == nil || !strings.HasPrefix(err.Error(), "image sid: test: it did not come up (full log") {
		t.Errorf("error is %v", err)
	}
}

func TestAnUnchangedImageIsNotTestedAgain(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	failing(t, s, "one")
	s.Test = func(context.Context, string, Generation, io.Writer) error {
		t.Error("tested")
		return nil
	}
	t.Setenv("FAKE_TALLY", `{"ok": 1}`)
	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: all\n  fake: true\n")
	if generation, outcome, err := s.Maintain(t.Context(), "sid", ofSid); err != nil || outcome != Unchanged || generation != first {
		t.Errorf("%v %s, %v", generation, outcome, err)
	}
	wantNoFailed(t, s, "sid") // it is well again
}

func TestAStoppedTestLeavesNothing(t *testing.T) {
	s, _ := fakeStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("a signal came")
	s.Test = func(ctx context.Context, _ string, _ Generation, _ io.Writer) error {
		cancel(why)
		return errors.New("whatever came of it")
	}
	if _, err := s.Create(ctx, "sid", CreateOptions{}); !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
	wantNothing(t, s, "sid")
}

func TestOfALoginOnlyWhatFailsItsTestIsKept(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	broken := errors.New("it does not boot")
	s.Test = func(context.Context, string, Generation, io.Writer) error { return broken }
	for _, end := range []error{errors.New("exit 1"), nil} {
		_, err := s.Edit(t.Context(), "sid", func(_ context.Context, root string) error {
			write(t, filepath.Join(root, "etc/edited"), "by hand")
			return end
		})
		if !errors.Is(err, end) && end != nil || end == nil && !errors.Is(err, broken) {
			t.Errorf("error is %v", err)
		}
		wantOnly(t, s, "sid", first)
		if root, err := s.Failed("sid"); (err == nil) != (end == nil) || err == nil && !exists(filepath.Join(root, "etc/edited")) {
			t.Errorf("after %v the failed tree is %q, %v", end, root, err)
		}
	}
}

func TestWhoLooksAtAFailedTreeKeepsBuildsAway(t *testing.T) {
	s, _ := fakeStore(t)
	if err := s.Inspect(t.Context(), "sid", nil); err == nil || !strings.Contains(err.Error(), "no such image") {
		t.Errorf("error is %v", err)
	}
	create(t, s, "sid")
	if err := s.Inspect(t.Context(), "sid", nil); !errors.Is(err, errNothingFailed) {
		t.Errorf("error is %v", err)
	}
	failing(t, s, "one")
	end := errors.New("the shell's")
	err := s.Inspect(t.Context(), "sid", func(_ context.Context, root string) error {
		var busy *BusyError
		if _, _, err := s.Maintain(t.Context(), "sid", MaintainOptions{NoWait: true}); !errors.As(err, &busy) || !strings.Contains(busy.By, fmt.Sprintf("process %d (", os.Getpid())) {
			t.Errorf("a build meanwhile: %v", err)
		}
		write(t, filepath.Join(root, "etc/looked"), "at")
		return end
	})
	if !errors.Is(err, end) {
		t.Errorf("error is %v", err)
	}
	if root, err := s.Failed("sid"); err != nil || !exists(filepath.Join(root, "etc/looked")) {
		t.Errorf("afterwards: %v", err)
	}
	// As if whoever looked had been killed.
	write(t, filepath.Join(s.generations("sid"), ".build"), "-\n4194304\n")
	failing(t, s, "two")
}

// Where a failed tree changes places with an older one, the process can be
// killed before or after. Both are made by hand here.
func TestOfABuildThatWasKilledNothingIsKept(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	failing(t, s, "one")
	dir := s.generations("sid")
	for _, kept := range []string{"one", "two"} {
		other := map[string]string{"one": "two", "two": "one"}[kept]
		write(t, filepath.Join(dir, ".build"), "21000101T000000Z\n")
		write(t, filepath.Join(dir, "21000101T000000Z/etc/which"), other+"\n")
		write(t, filepath.Join(dir, ".failed/etc/which"), kept+"\n")
		if _, err := s.Edit(t.Context(), "sid", func(context.Context, string) error { return errors.New("no") }); err == nil {
			t.Error("no error")
		}
		wantOnly(t, s, "sid", first)
		if got := read(t, filepath.Join(s.failed("sid"), "etc/which")); got != kept+"\n" {
			t.Errorf("kept is %q, not %s", got, kept)
		}
	}
}

func TestAFailedTreeGoesWithAPruneOrARemoval(t *testing.T) {
	s, _ := fakeStore(t)
	s.InUse = func(string) bool { return false }
	first := create(t, s, "sid")
	failing(t, s, "one")
	if pruned, err := s.Prune(t.Context(), "sid", 2); err != nil || !pruned.Failed || len(pruned.Removed) != 0 {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	wantNoFailed(t, s, "sid")
	wantOnly(t, s, "sid", first)
	failing(t, s, "two")
	if pruned, err := s.Remove(t.Context(), "sid"); err != nil || !pruned.Failed || len(pruned.Removed) != 1 {
		t.Errorf("removed %v, %v", pruned, err)
	}
	wantNothing(t, s, "sid")

	// Of an image that never was.
	s.Test = func(context.Context, string, Generation, io.Writer) error { return errors.New("no") }
	if _, err := s.Create(t.Context(), "new", CreateOptions{}); err == nil {
		t.Error("no error")
	}
	if names, err := s.Removed(); err != nil || !slices.Equal(names, []string{"new"}) {
		t.Errorf("there is something left of %v, %v", names, err)
	}
	if pruned, err := s.Prune(t.Context(), "new", 2); err != nil || !pruned.Failed {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	wantNothing(t, s, "new")
}
