package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/lock"
)

// leftovers are the paths of what is left, below the state directory.
func leftovers(t *testing.T, s *Store) []string {
	t.Helper()
	found := find(t, s)
	paths := []string{}
	for _, l := range found {
		path, err := filepath.Rel(s.StateDir, l.Path)
		if err != nil || l.Why == "" || l.What == "" {
			t.Errorf("%+v, %v", l, err)
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

func find(t *testing.T, s *Store) []leftover.Item {
	t.Helper()
	found, err := s.Leftovers()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// collect removes all that is left.
func collect(t *testing.T, s *Store) {
	t.Helper()
	for _, l := range find(t, s) {
		if err := l.Remove(t.Context()); err != nil {
			t.Errorf("%s: %v", l.Path, err)
		}
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("after it was removed: %q", left)
	}
}

func TestWhatAKilledBuildLeftIsALeftoverUnlessAnotherOneBuilds(t *testing.T) {
	s, _ := fakeStore(t)
	generation := create(t, s, "sid")
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("of a whole image: %q", left)
	}
	dir := s.generations("sid")
	write(t, filepath.Join(dir, ".build"), "20990101T000000Z\n1\n")
	bootable(t, filepath.Join(dir, "20990101T000000Z"))
	write(t, filepath.Join(dir, "20990101T000000Z.json"), "{}")
	symlink(t, "x", filepath.Join(dir, ".next"))

	held, err := lock.TryFile(filepath.Join(dir, ".build"), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("while it is built: %q", left)
	}
	held.Close()
	want := []string{".generations/sid/.next", ".generations/sid/20990101T000000Z", ".generations/sid/20990101T000000Z.json"}
	if left := leftovers(t, s); !slices.Equal(left, want) {
		t.Errorf("%q, want %q", left, want)
	}
	found := find(t, s)
	if held, err = lock.TryFile(filepath.Join(dir, ".build"), lock.Exclusive); err != nil {
		t.Fatal(err)
	}
	if err := found[0].Remove(t.Context()); err != nil || !exists(found[0].Path) {
		t.Errorf("a build has begun since it was listed: %v, and it is gone", err)
	}
	held.Close()
	collect(t, s)
	wantOnly(t, s, "sid", generation)
}

func TestGenerationsOfARemovedImageAreLeftoversOnceNoJobRunsOnThem(t *testing.T) {
	s, _ := fakeStore(t)
	generation := create(t, s, "sid")
	used := true
	s.InUse = func(string) bool { return used }
	if err := second(s.Remove(t.Context(), "sid")); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, s); len(left) > 0 || !exists(generation.Path) {
		t.Errorf("while a job runs on it: %q", left)
	}
	used = false
	if left := leftovers(t, s); !slices.Equal(left, []string{".generations/" + generation.Name}) {
		t.Errorf("%q", left)
	}
	collect(t, s)
	if exists(s.generations("sid")) {
		t.Error("it was not removed")
	}
}

func TestBasesAndDownloadsThatNoBuildCanUseAreLeftovers(t *testing.T) {
	s, _ := fakeStore(t)
	s.BaseMaxAge, s.DownloadsMax = time.Hour, 100
	half := filepath.Join(s.bases().Dir, "sid-half")
	busy := filepath.Join(s.bases().Dir, "sid-busy")
	for _, dir := range []string{half, busy} {
		bootable(t, filepath.Join(dir, "tree"))
		write(t, filepath.Join(dir, "lock"), "")
	}
	held, err := lock.TryFile(filepath.Join(busy, "lock"), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	downloads := s.downloads().Dir
	write(t, filepath.Join(downloads, "kept"), "short")
	write(t, filepath.Join(downloads, ".new-now"), "some")
	if left := leftovers(t, s); !slices.Equal(left, []string{".bases/sid-half"}) {
		t.Errorf("%q", left)
	}
	write(t, filepath.Join(downloads, ".new-then"), "some")
	then := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(downloads, ".new-then"), then, then); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, s); !slices.Equal(left, []string{".bases/sid-half", ".downloads"}) {
		t.Errorf("%q", left)
	}
	collect(t, s)
	if exists(half) || !exists(busy) || !exists(filepath.Join(downloads, "kept")) || !exists(filepath.Join(downloads, ".new-now")) {
		t.Error("more or less was removed than what is of no use")
	}
}
