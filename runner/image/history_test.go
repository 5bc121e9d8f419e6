package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// edit publishes a copy of the current generation.
func edit(t *testing.T, s *Store, name string) Generation {
	t.Helper()
	generation, err := s.Edit(t.Context(), name, func(context.Context, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// wantCurrent checks which generation new jobs get.
func wantCurrent(t *testing.T, s *Store, want Generation) {
	t.Helper()
	name, _, _ := strings.Cut(want.Name, "/")
	if current, err := s.Current(name); err != nil || current != want {
		t.Errorf("current is %v, %v; not %v", current, err, want)
	}
}

func TestRollbackGoesBackAndFurtherBack(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	second, third := edit(t, s, "sid"), edit(t, s, "sid")
	for _, step := range []struct{ from, to Generation }{{third, second}, {second, first}} {
		now, was, err := s.Rollback(t.Context(), "sid", "")
		if err != nil || now != step.to || was != step.from {
			t.Errorf("rolled back from %v to %v, %v", was, now, err)
		}
		wantCurrent(t, s, step.to)
	}
	if _, _, err := s.Rollback(t.Context(), "sid", ""); !errors.Is(err, ErrNothingOlder) {
		t.Errorf("error is %v", err)
	}
	wantCurrent(t, s, first)

	for _, to := range []string{filepath.Base(third.Name), third.Name} { // forth; and to where it is
		if now, _, err := s.Rollback(t.Context(), "sid", to); err != nil || now != third {
			t.Errorf("rolled to %v, %v", now, err)
		}
	}
	wantCurrent(t, s, third)
	if _, _, err := s.Rollback(t.Context(), "sid", "../etc"); err == nil || !strings.Contains(err.Error(), filepath.Base(first.Name)) {
		t.Errorf("error is %v", err)
	}
}

// The generation that was rolled back from must not be gone back to, and not be
// kept in place of the good one.
func TestWhatWasRolledBackFromIsForgottenByTheNextBuild(t *testing.T) {
	s, _ := fakeStore(t)
	s.InUse = func(string) bool { return false }
	good := create(t, s, "sid")
	edit(t, s, "sid")
	if _, _, err := s.Rollback(t.Context(), "sid", ""); err != nil {
		t.Fatal(err)
	}
	third := edit(t, s, "sid")
	wantOnly(t, s, "sid", good, third)
	if now, _, err := s.Rollback(t.Context(), "sid", ""); err != nil || now != good {
		t.Errorf("rolled back to %v, %v", now, err)
	}
}

func TestRollbackToAChrootOfTheOriginal(t *testing.T) {
	s, _ := fakeStore(t)
	bootable(t, filepath.Join(s.StateDir, "sid"))
	edit(t, s, "sid")
	now, _, err := s.Rollback(t.Context(), "sid", "")
	if err != nil || filepath.Base(now.Name) != "00000000T000000Z" {
		t.Errorf("rolled back to %v, %v", now, err)
	}
	wantCurrent(t, s, now)
}

func TestRollbackToABrokenTreeIsRefused(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	second := edit(t, s, "sid")
	if err := os.Remove(filepath.Join(first.Path, "usr/bin/bash")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Rollback(t.Context(), "sid", ""); err == nil || !strings.Contains(err.Error(), "broken image") {
		t.Errorf("error is %v", err)
	}
	wantCurrent(t, s, second)
}

// A build that was killed right after its swap leaves its stamp; once the link
// leads elsewhere, that would look like an unfinished tree.
func TestAfterAKilledBuildNoPublishedGenerationIsLost(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	second := edit(t, s, "sid")
	write(t, filepath.Join(s.generations("sid"), ".build"), filepath.Base(second.Name)+"\n")
	if _, _, err := s.Rollback(t.Context(), "sid", ""); err != nil {
		t.Fatal(err)
	}
	third := edit(t, s, "sid")
	wantOnly(t, s, "sid", first, second, third)
}

func TestTreeThatIsBeingBuiltIsNoGeneration(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	_, err := s.Edit(t.Context(), "sid", func(context.Context, string) error {
		all, err := s.Generations("sid")
		if !slices.Equal(all, []Generation{first}) {
			t.Errorf("meanwhile there are %v, %v", all, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPruneKeepsHowManyItIsToldAndThoseInUse(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid") // InUse is not set: builds remove nothing
	second, third, fourth := edit(t, s, "sid"), edit(t, s, "sid"), edit(t, s, "sid")
	s.InUse = func(generation string) bool { return generation == first.Name }
	pruned, err := s.Prune(t.Context(), "sid", 3)
	if err != nil || len(pruned.Removed) != 0 || !slices.Equal(pruned.InUse, []string{first.Name}) {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	pruned, err = s.Prune(t.Context(), "sid", 1)
	if err != nil || !slices.Equal(pruned.Removed, []string{second.Name, third.Name}) {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	wantOnly(t, s, "sid", first, fourth)
	if exists(s.recordPath(second.Name)) || !exists(s.recordPath(first.Name)) {
		t.Error("records and trees do not go together")
	}
	for name, keep := range map[string]int{"sid": 0, "none": 2} {
		if _, err := s.Prune(t.Context(), name, keep); err == nil {
			t.Errorf("pruned %s to %d", name, keep)
		}
	}
	if exists(s.generations("none")) {
		t.Error("a prune made a directory")
	}
}

func TestPruneWaitsForJobsThatAreStarting(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	second := edit(t, s, "sid")
	s.InUse = func(string) bool { return false }
	defer func(patience time.Duration) { prunePatience = patience }(prunePatience)
	prunePatience = 100 * time.Millisecond
	_, release, err := s.Hold(t.Context(), "sid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), "sid", 1); !errors.Is(err, errImpatient) {
		t.Errorf("error is %v", err)
	}
	if _, err := s.Remove(t.Context(), "sid"); !errors.Is(err, errImpatient) {
		t.Errorf("error is %v", err)
	}
	wantOnly(t, s, "sid", first, second)
	release()
}

func TestRemoveLeavesOnlyWhatJobsUse(t *testing.T) {
	for _, original := range []bool{false, true} {
		s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
		used := ""
		s.InUse = func(generation string) bool { return generation == used }
		if original {
			bootable(t, filepath.Join(s.StateDir, "sid"))
		} else {
			create(t, s, "sid")
			edit(t, s, "sid")
		}
		current, err := s.Current("sid")
		if err != nil {
			t.Fatal(err)
		}
		used = current.Name
		pruned, err := s.Remove(t.Context(), "sid")
		if err != nil || !slices.Equal(pruned.InUse, []string{used}) {
			t.Errorf("removed %v, %v", pruned, err)
		}
		if err := Check(filepath.Join(s.StateDir, ".generations", used)); err != nil {
			t.Errorf("what a job uses is gone: %v", err)
		}
		if _, _, err := s.Hold(t.Context(), "sid"); !errors.Is(err, ErrNoChroot) {
			t.Errorf("a job can still have it: %v", err)
		}
		if names, err := s.Removed(); err != nil || !slices.Equal(names, []string{"sid"}) {
			t.Errorf("left of removed images: %v, %v", names, err)
		}

		// It can be made again, and has then no older one to go back to.
		created, _, err := s.Maintain(t.Context(), "sid", ofSid)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Previous("sid", created); !errors.Is(err, ErrNothingOlder) {
			t.Errorf("error is %v", err)
		}
		used = ""
		if pruned, err := s.Remove(t.Context(), "sid"); err != nil || len(pruned.Removed) != 2 {
			t.Errorf("removed %v, %v", pruned, err)
		}
		wantNothing(t, s, "sid")
		if names, err := s.Removed(); err != nil || len(names) != 0 {
			t.Errorf("left of removed images: %v, %v", names, err)
		}
	}
}
