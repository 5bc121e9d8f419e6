package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/image/debian"
)

const nothingChanged = `{"ok": 3, "changed": 0, "ignored": 0, "rescued": 0}`

func TestMaintenanceThatChangesNothingPublishesNothing(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	t.Setenv("FAKE_TALLY", nothingChanged)
	var steps []string
	s.Progress = told(&steps)
	first, outcome, err := s.Maintain(t.Context(), "sid", ofSid)
	if err != nil || outcome != Published {
		t.Fatalf("a creation was not published: %v", err)
	}
	book := filepath.Join(s.PlaybookDirs[0], "sid.yaml")
	write(t, book, read(t, book)+"# a remark\n")
	again, outcome, err := s.Maintain(t.Context(), "sid", ofSid)
	if err != nil || outcome != Unchanged || again != first {
		t.Errorf("got %v, published %v, %v", again, outcome, err)
	}
	wantOnly(t, s, "sid", first)
	if !slices.Contains(steps, "no task, no package and no list of apt changed, so nothing is published") {
		t.Errorf("steps are %q", steps)
	}
	r, err := s.Record(first)
	if err != nil || time.Since(r.Maintained) > time.Minute || r.How != byBootstrap {
		t.Errorf("record is %+v, %v", r, err)
	}
	if now, err := ansible.ReadPlaybook(book); err != nil || r.Playbook.SHA256 != now.SHA256 {
		t.Errorf("the playbook that ran is still the older one: %v", err)
	}
}

func TestMaintenanceWarnsOfAnotherSuiteThanTheImagesOwn(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	t.Setenv("FAKE_TALLY", nothingChanged)
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); err != nil {
		t.Fatal(err)
	}
	for suite, warned := range map[string]bool{"": false, "sid": false, "unstable": false, "trixie": true} {
		var notes []string
		s.Progress = told(&notes)
		if _, outcome, err := s.Maintain(t.Context(), "sid", MaintainOptions{Bootstrap: debian.Bootstrap{Suite: suite}}); err != nil || outcome != Unchanged {
			t.Errorf("%q: %v, %v", suite, outcome, err)
		}
		warning := "warning: the image was made of sid and stays so; 'nspawn-runner chroot-maintenance --recreate sid' makes it of " + suite + ", as its playbook says"
		if slices.Contains(notes, warning) != warned {
			t.Errorf("%q: %q", suite, notes)
		}
	}
}

func TestWhatCountsAsAChange(t *testing.T) {
	for _, c := range []struct{ tally, script, want string }{
		{"", "true", "ansible did not say"},
		{"nonsense", "true", "ansible did not say"},
		{`{"ok": 3, "changed": 2}`, "true", "changed something in 2 of 3 tasks"},
		{`{"ok": 3, "changed": 2, "tasks": {"changed": ["start\nit"]}}`, "true", "changed something in 2 of 3 tasks: start it, ..."},
		{`{"ok": 3, "ignored": 1}`, "true", "may have changed something"},
		{`{"ok": 3, "rescued": 1}`, "true", ""},
		{nothingChanged, "echo Package >> $1/var/lib/dpkg/status", "the packages changed"},
		{nothingChanged, "rm $1/var/lib/dpkg/status", "the packages changed"},
		{nothingChanged, "echo new >> $1/var/lib/apt/lists/mirror_Packages", "apt's lists changed"},
		{nothingChanged, "touch -d yesterday $1/var/lib/apt/lists/mirror_Packages", "apt's lists changed"},
		{nothingChanged, "echo signed >> $1/var/lib/apt/lists/mirror_InRelease", ""},
	} {
		s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: "+c.script+"\n")
		plain := filepath.Join(s.StateDir, "sid")
		bootable(t, plain)
		write(t, filepath.Join(plain, "var/lib/dpkg/status"), "Package: dpkg\n")
		write(t, filepath.Join(plain, "var/lib/apt/lists/mirror_Packages"), "old")
		edit(t, s, "sid")
		t.Setenv("FAKE_TALLY", c.tally)
		generation, outcome, err := s.Maintain(t.Context(), "sid", ofSid)
		if err != nil || (outcome == Published) != (c.want != "") {
			t.Errorf("%s, %s: %s, %v", c.tally, c.script, outcome, err)
		}
		if r, err := s.Record(generation); err != nil || !strings.Contains(r.Why, c.want) {
			t.Errorf("%s, %s: record is %+v, %v", c.tally, c.script, r, err)
		}
	}
}

func TestAMaintenanceThatChangesTheSameAsTheOneBeforeSaysSo(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	create(t, s, "sid")
	var steps []string
	s.Progress = told(&steps)
	const what = "ansible changed something in 1 of 3 tasks: start it"
	t.Setenv("FAKE_TALLY", `{"ok": 3, "changed": 1, "tasks": {"changed": ["start it"]}}`)
	for _, want := range []string{what, what + "; so did the maintenance before: a task that reports a change each time makes a new generation each time"} {
		steps = nil
		generation, outcome, err := s.Maintain(t.Context(), "sid", ofSid)
		if err != nil || outcome != Published || !slices.Contains(steps, want) {
			t.Errorf("%s, %v, %q", outcome, err, steps)
		}
		if r, err := s.Record(generation); err != nil || r.Why != what {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestChrootOfTheOriginalBecomesAGenerationEvenIfNothingChanges(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	t.Setenv("FAKE_TALLY", nothingChanged)
	bootable(t, filepath.Join(s.StateDir, "sid"))
	if _, outcome, err := s.Maintain(t.Context(), "sid", ofSid); err != nil || outcome != Published {
		t.Errorf("%s, %v", outcome, err)
	}
	if _, err := os.Readlink(filepath.Join(s.StateDir, "sid")); err != nil {
		t.Error(err)
	}
}

func TestWhatIsFreshIsLeftAlone(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	maintain := func(options MaintainOptions, want Outcome) {
		t.Helper()
		if _, outcome, err := s.Maintain(t.Context(), "sid", options); err != nil || outcome != want {
			t.Errorf("%+v: %s, %v", options, outcome, err)
		}
	}
	daily := MaintainOptions{Bootstrap: ofSid.Bootstrap, IfOlder: 24 * time.Hour}
	maintain(daily, Published)
	maintain(daily, Fresh)
	edit(t, s, "sid") // a shell does not make it older, nor newer
	maintain(daily, Fresh)
	maintain(MaintainOptions{Bootstrap: ofSid.Bootstrap, IfOlder: time.Nanosecond}, Published)
	maintain(ofSid, Published)
	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: all\n  fake: echo\n")
	maintain(daily, Published)
	maintain(MaintainOptions{Bootstrap: ofSid.Bootstrap, Recreate: true}, Published)
	if got := strings.Count(read(t, calls), "\nmmdebstrap "); got != 2 {
		t.Errorf("bootstrapped %d times", got)
	}
}

func TestNoWaitSaysWhoBuilds(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	create(t, s, "sid")
	_, err := s.Edit(t.Context(), "sid", func(context.Context, string) error {
		_, _, err := s.Maintain(t.Context(), "sid", MaintainOptions{NoWait: true})
		var busy *BusyError
		if !errors.As(err, &busy) || !strings.HasPrefix(err.Error(), fmt.Sprintf("image sid: it is busy with a build by process %d (%s", os.Getpid(), os.Args[0])) {
			t.Errorf("error is %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAChrootOfTheOriginalGetsAGenerationAlsoAfterABuildThatFailed(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	t.Setenv("FAKE_TALLY", nothingChanged)
	bootable(t, filepath.Join(s.StateDir, "sid"))
	failed := errors.New("it failed")
	if _, err := s.Edit(t.Context(), "sid", func(context.Context, string) error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	first, outcome, err := s.Maintain(t.Context(), "sid", ofSid)
	if err != nil || outcome != Published {
		t.Fatalf("%v, %v", outcome, err)
	}
	if r, err := s.Record(first); err != nil || r.How != byMaintenance || r.Replaced != "sid/00000000T000000Z" {
		t.Errorf("record is %+v, %v", r, err)
	}
	if _, outcome, err := s.Maintain(t.Context(), "sid", ofSid); err != nil || outcome != Unchanged {
		t.Errorf("the next one: %v, %v", outcome, err)
	}
}
