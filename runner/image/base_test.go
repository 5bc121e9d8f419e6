package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image/debian"
)

// baseStore is a fakeStore with bases.
func baseStore(t *testing.T, playbooks ...string) (s *Store, bootstraps func() int) {
	s, calls := fakeStore(t, playbooks...)
	s.BaseMaxAge = time.Hour
	return s, func() int { return strings.Count(read(t, calls), "\nmmdebstrap ") }
}

func TestSecondImageOfASuiteBeginsWithACopyOfABase(t *testing.T) {
	s, bootstraps := baseStore(t, "one", "- hosts: all\n  fake: touch $1/etc/touched\n")
	create(t, s, "one")
	two := create(t, s, "two")
	if bootstraps() != 1 {
		t.Errorf("bootstrapped %d times", bootstraps())
	}
	if got := read(t, filepath.Join(two.Path, "etc/hostname")); got != "two\n" {
		t.Errorf("its name is %q", got)
	}
	if exists(filepath.Join(two.Path, "etc/touched")) {
		t.Error("the first image's playbook ran in the base")
	}
	if images, err := s.List(); err != nil || len(images) != 2 {
		t.Errorf("images: %v, %v", images, err)
	}
}

func TestOtherBootstrapsHaveOtherBases(t *testing.T) {
	s, bootstraps := baseStore(t)
	keyring := filepath.Join(t.TempDir(), "keys.gpg")
	write(t, keyring, "keys")
	for i, o := range []debian.Bootstrap{
		{Suite: "sid"}, {Suite: "trixie"}, {Suite: "sid", Mirror: "http://mirror.example/debian"}, {Suite: "sid", Include: []string{"less"}},
		{Suite: "sid", Components: []string{"main", "contrib"}}, {Suite: "sid", Variant: "buildd"}, {Suite: "sid", Keyring: keyring},
		{Suite: "sid", AnyAge: true}, {Suite: "sid", Mirror: "http://mirror.example/debian", NoUpdates: true},
		{Suite: "sid", Mirror: "http://mirror.example/debian", Security: debian.NoSecurity},
	} {
		if _, err := s.Create(t.Context(), fmt.Sprint("image", i), CreateOptions{Bootstrap: o}); err != nil {
			t.Fatal(err)
		}
		if bootstraps() != i+1 {
			t.Errorf("%+v: %d bootstraps", o, bootstraps())
		}
	}
	write(t, keyring, "other keys")
	if _, err := s.Create(t.Context(), "last", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "sid", Keyring: keyring}}); err != nil || bootstraps() != 11 {
		t.Errorf("other keys in the keyring: %d bootstraps, %v", bootstraps(), err)
	}
	// There are eleven by now, and the oldest go.
	if entries, err := os.ReadDir(s.bases().Dir); err != nil || len(entries) != 6 {
		t.Errorf("bases are %v, %v", entries, err)
	}
	if _, err := s.Create(t.Context(), "again", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "sid", Keyring: keyring}}); err != nil || bootstraps() != 11 {
		t.Errorf("the newest: %d bootstraps, %v", bootstraps(), err)
	}
}

func TestBaseThatIsOldHalfMadeOrOfAnEarlierBootIsNotUsed(t *testing.T) {
	s, bootstraps := baseStore(t)
	create(t, s, "first")
	records, _ := filepath.Glob(filepath.Join(s.bases().Dir, "*/base.json"))
	if len(records) != 1 {
		t.Fatalf("bases are %q", records)
	}
	good := read(t, records[0])
	want := 1
	for _, bad := range []string{
		"", good[:10], `{"made":"2006-01-02T15:04:05Z","boot":"` + host.BootID() + `"}`,
		strings.Replace(good, host.BootID(), "another", 1), strings.Replace(good, `"made":"2`, `"made":"9`, 1),
	} {
		write(t, records[0], bad)
		if bad == "" { // as when its maker was killed
			if err := os.Remove(records[0]); err != nil {
				t.Fatal(err)
			}
		}
		want++
		create(t, s, fmt.Sprint("image", want))
		if bootstraps() != want {
			t.Errorf("%q was used", bad)
		}
	}
	// Nobody bootstraps any more, but what is old goes with the next build.
	write(t, records[0], `{}`)
	edit(t, s, "first")
	if entries, err := os.ReadDir(s.bases().Dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestTwoBuildsAtOnceShareOneBootstrap(t *testing.T) {
	s, bootstraps := baseStore(t)
	t.Setenv("FAKE_BOOTSTRAP", "while ! [ -e "+s.StateDir+"/waits ]; do sleep 0.02; done")
	s.Progress = func(event Event) {
		if strings.HasPrefix(event.Note, "wait for another image's bootstrap") {
			write(t, filepath.Join(s.StateDir, "waits"), "")
		}
	}
	var both sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		both.Go(func() {
			if _, err := s.Create(t.Context(), name, CreateOptions{Bootstrap: debian.Bootstrap{Suite: "sid"}}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if bootstraps() != 1 {
		t.Errorf("bootstrapped %d times", bootstraps())
	}
}

func TestBuildGoesOnWithoutABaseThatCannotBeKept(t *testing.T) {
	s, bootstraps := baseStore(t)
	var steps []string
	s.Progress = told(&steps)
	bin, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	write(t, filepath.Join(bin, "cp"), "#!/bin/sh\nfor to; do :; done; case $to in */.bases/*) ;; *) exec /bin/cp \"$@\" ;; esac; mkdir $to; echo half > $to/half; echo 'No space left on device' >&2; exit 1\n")
	if err := os.Chmod(filepath.Join(bin, "cp"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, s, "one", create(t, s, "one"))
	if !strings.Contains(strings.Join(steps, "\n"), "warning: the next image will need a bootstrap too: copy ") {
		t.Errorf("steps are %q", steps)
	}
	wantOnly(t, s, "two", create(t, s, "two"))
	if bootstraps() != 2 {
		t.Errorf("bootstrapped %d times", bootstraps())
	}
	if trees, _ := filepath.Glob(filepath.Join(s.bases().Dir, "*/tree")); len(trees) != 0 {
		t.Errorf("half a base stays: %q", trees)
	}
}

func TestFailedBootstrapMakesNoBase(t *testing.T) {
	s, _ := baseStore(t)
	t.Setenv("FAKE_BOOTSTRAP", "exit 7")
	if _, err := s.Create(t.Context(), "sid", CreateOptions{}); err == nil {
		t.Error("no error")
	}
	if entries, _ := os.ReadDir(s.bases().Dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestWithoutAnAgeThereAreNoBases(t *testing.T) {
	s, bootstraps := baseStore(t)
	create(t, s, "one")
	s.BaseMaxAge = 0
	create(t, s, "two")
	if bootstraps() != 2 {
		t.Errorf("bootstrapped %d times", bootstraps())
	}
	if entries, _ := os.ReadDir(s.bases().Dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}
