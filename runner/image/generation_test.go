package image

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

func TestChrootOfTheOriginalIsUsedAndBecomesTheFirstGeneration(t *testing.T) {
	s, _ := fakeStore(t)
	plain := filepath.Join(s.StateDir, "sid")
	bootable(t, plain)
	write(t, filepath.Join(plain, "etc/hostname"), "by python")

	before, err := s.Current("sid")
	if err != nil || before.Path != plain {
		t.Fatalf("current is %v, %v", before, err)
	}
	held, release, err := s.Hold(t.Context(), "sid")
	if err != nil || held != before {
		t.Fatalf("held is %v, %v", held, err)
	}
	release()
	info, err := os.Stat(plain)
	if err != nil {
		t.Fatal(err)
	}

	after, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	first := Generation{Name: before.Name, Path: filepath.Join(s.StateDir, ".generations", before.Name)}
	wantOnly(t, s, "sid", first, after)
	moved, err := os.Stat(first.Path)
	if err != nil || !os.SameFile(info, moved) {
		t.Errorf("the first generation is not the directory that was there: %v", err)
	}
	if got := read(t, filepath.Join(after.Path, "etc/hostname")); got != "by python" {
		t.Errorf("the new generation is no copy of it: %q", got)
	}
}

func TestABuildThatFailsAdoptsTheChrootOfTheOriginalAndChangesNothingInIt(t *testing.T) {
	s, _ := fakeStore(t)
	plain := filepath.Join(s.StateDir, "sid")
	bootable(t, plain)
	before, err := s.Current("sid")
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("it failed")
	if _, err := s.Edit(t.Context(), "sid", func(context.Context, string) error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	wantOnly(t, s, "sid", Generation{Name: before.Name, Path: filepath.Join(s.StateDir, ".generations", before.Name)})
	if err := Check(plain); err != nil {
		t.Error(err)
	}
}

// An administrator may put a plain directory back by hand.
func TestChrootOfTheOriginalIsAdoptedAgain(t *testing.T) {
	s, _ := fakeStore(t)
	plain := filepath.Join(s.StateDir, "sid")
	names := map[string]bool{}
	for range 2 {
		bootable(t, plain)
		current, err := s.Current("sid")
		if err != nil {
			t.Fatal(err)
		}
		names[current.Name] = true
		if _, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(plain); err != nil {
			t.Fatal(err)
		}
	}
	if len(names) != 2 {
		t.Errorf("two directories had the names %v", names)
	}
}

func TestPublicationIsNeverSeenHalfDone(t *testing.T) {
	s, _ := fakeStore(t)
	plain := filepath.Join(s.StateDir, "sid")
	bootable(t, plain) // so that both ways of publishing are seen
	stop, result := make(chan bool), make(chan error)
	go func() {
		var seen error
		for {
			select {
			case <-stop:
				result <- seen
				return
			default:
				if current, err := s.Current("sid"); err != nil {
					seen = err
				} else if err := Check(current.Path); err != nil && exists(current.Path) {
					seen = err
				}
			}
		}
	}()
	for range 5 {
		if _, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestCurrentWithoutAChroot(t *testing.T) {
	s, _ := fakeStore(t, "new", "- hosts: all\n  fake: true\n")
	if _, err := s.Current("new"); !errors.Is(err, ErrNoChroot) {
		t.Errorf("error is %v", err)
	}
	var unknown *UnknownError
	if _, _, err := s.Hold(t.Context(), "old"); !errors.As(err, &unknown) {
		t.Errorf("error is %v", err)
	}
	if exists(s.generations("old")) {
		t.Error("asking for an image made a directory for it")
	}
}

// A build can be killed at any moment. What it left is made by hand here.
func TestLeftoversOfAKilledBuildAreRemoved(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	second, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	dir := s.generations("sid")
	again := func(what string) Generation {
		generation, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
		if err != nil {
			t.Fatalf("after a build was killed %s: %v", what, err)
		}
		return generation
	}

	write(t, filepath.Join(dir, ".build"), "21000101T000000Z\n")
	write(t, filepath.Join(dir, "21000101T000000Z/etc/half"), "")
	third := again("while it filled its tree")
	wantOnly(t, s, "sid", first, second, third)

	write(t, filepath.Join(dir, ".build"), "21000101T000000Z\n")
	write(t, filepath.Join(dir, "21000101T000000Z/etc/half"), "")
	symlink(t, ".generations/sid/21000101T000000Z", filepath.Join(dir, ".next"))
	fourth := again("before its swap")
	wantOnly(t, s, "sid", first, second, third, fourth)

	write(t, filepath.Join(dir, ".build"), filepath.Base(fourth.Name)+"\n")
	fifth := again("after its swap")
	wantOnly(t, s, "sid", first, second, third, fourth, fifth)

	for _, nonsense := range []string{"", "2", "../../../../../../etc", "................", "."} {
		write(t, filepath.Join(dir, ".build"), nonsense)
		again("while it wrote " + nonsense)
	}
	if entries, err := os.ReadDir(s.StateDir); err != nil || len(entries) != 3 { // .generations .logs sid
		t.Errorf("the state directory has %v, %v", entries, err)
	}
}

func TestKilledAdoptionIsRepeated(t *testing.T) {
	s, _ := fakeStore(t)
	bootable(t, filepath.Join(s.StateDir, "sid"))
	before, err := s.Current("sid")
	if err != nil {
		t.Fatal(err)
	}
	symlink(t, ".generations/sid/21000101T000000Z", filepath.Join(s.StateDir, ".generations", before.Name))
	if current, err := s.Current("sid"); err != nil || current != before {
		t.Errorf("current is %v, %v; was %v", current, err, before)
	}
	after, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, s, "sid", Generation{Name: before.Name}, after)
}

func TestOlderGenerationsGoUnlessInUse(t *testing.T) {
	s, _ := fakeStore(t)
	var used []string
	s.InUse = func(generation string) bool { return slices.Contains(used, generation) }
	edit := func() Generation {
		generation, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return generation
	}
	first := create(t, s, "sid")
	used = []string{first.Name}
	second := edit()
	third := edit()
	fourth := edit()
	wantOnly(t, s, "sid", first, third, fourth)
	used = nil
	fifth := edit()
	wantOnly(t, s, "sid", fourth, fifth)
	if exists(second.Path) {
		t.Error("the second generation is still there")
	}
	if left, err := os.ReadDir(filepath.Join(s.StateDir, ".trash")); err != nil || len(left) != 0 {
		t.Errorf("the trash has %v, %v", left, err)
	}
}

func TestHeldGenerationIsNotRemoved(t *testing.T) {
	s, _ := fakeStore(t)
	s.InUse = func(string) bool { return false } // a held one is not on record yet
	defer func(patience time.Duration) { prunePatience = patience }(prunePatience)
	prunePatience = 100 * time.Millisecond
	edit := func() Generation {
		generation, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return generation
	}
	create(t, s, "sid")
	held, release, err := s.Hold(t.Context(), "sid")
	if err != nil {
		t.Fatal(err)
	}
	second, third := edit(), edit()
	wantOnly(t, s, "sid", held, second, third)
	release()
	wantOnly(t, s, "sid", third, edit())
}

// A subvolume is cloned by a snapshot, which no copy can be mistaken for.
func TestGenerationsOnBtrfsAreSubvolumes(t *testing.T) {
	s, _ := fakeStore(t)
	mountBtrfs(t, s.StateDir)
	first := create(t, s, "sid")
	second, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return errors.New("no") })
	if err == nil {
		t.Error("published in spite of an error")
	}
	for _, generation := range []Generation{first, second} {
		if is, err := storage.IsSubvolume(generation.Path); !is || err != nil {
			t.Errorf("%s is no subvolume: %v", generation.Name, err)
		}
	}
	wantOnly(t, s, "sid", first, second)

	// The original made subvolumes too, called NAME.
	if err := storage.Create(filepath.Join(s.StateDir, "old")); err != nil {
		t.Fatal(err)
	}
	bootable(t, filepath.Join(s.StateDir, "old"))
	old, err := s.Current("old")
	if err != nil {
		t.Fatal(err)
	}
	third, err := s.Edit(t.Context(), "old", func(ctx context.Context, root string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, s, "old", old, third)
	if is, err := storage.IsSubvolume(third.Path); !is || err != nil {
		t.Errorf("%s is no subvolume: %v", third.Name, err)
	}
}

// mountBtrfs mounts a new btrfs on dir for the length of a test.
func mountBtrfs(t *testing.T, dir string) {
	file := filepath.Join(t.TempDir(), "btrfs")
	write(t, file, "")
	if err := os.Truncate(file, 2<<30); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.btrfs", "-q", file}, {"mount", "-o", "loop", file, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no btrfs here: %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// When the lock of an empty image is removed, another build may begin in the same directory.
func TestARemovalTakesNothingFromABuildThatBeginsMeanwhile(t *testing.T) {
	s, _ := fakeStore(t)
	held, err := s.lockBuild(t.Context(), "sid", false)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	tree := filepath.Join(s.generations("sid"), "20260101-000000")
	fault.Hook = func(mark string) {
		if mark != "image: locks of an empty image removed" {
			return
		}
		other, err := lock.TryFile(filepath.Join(s.generations("sid"), ".build"), lock.Exclusive)
		if err != nil {
			t.Error(err)
			return
		}
		other.Close()
		write(t, filepath.Join(tree, "file"), "of the other build")
	}
	t.Cleanup(func() { fault.Hook = nil })
	if err := s.removeEmpty("sid"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(tree, "file")); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyImageStaysWhileAJobLooksForIt(t *testing.T) {
	s, _ := fakeStore(t)
	held, err := s.lockBuild(t.Context(), "sid", false)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	job, err := lock.TryFile(filepath.Join(s.generations("sid"), ".hold"), lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.removeEmpty("sid"); err != nil || !exists(held.Name()) {
		t.Errorf("%v", err)
	}
	job.Close()
	if err := s.removeEmpty("sid"); err != nil || exists(s.generations("sid")) {
		t.Errorf("%v", err)
	}
}
