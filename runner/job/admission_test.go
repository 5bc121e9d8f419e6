package job

import (
	"nspawn-runner/runner/statedir"
	"regexp"
	"strings"
	"testing"
)

func TestAJobIsNotAdmittedToAHostThatIsShortOfRoom(t *testing.T) {
	for settings, want := range map[string]string{
		"min_free_disk: 100%\n":                     `^only \d+ MiB are free in /.*; jobs need at least \d+ MiB \(min_free_disk\)`,
		"min_free_disk: 0\nmin_free_memory: 100%\n": `^only \d+ MiB of memory are available; jobs need at least \d+ MiB \(min_free_memory\)`,
		"min_free_disk: 0\nmin_free_memory: 0\n":    "",
		"min_free_disk: 1\nmin_free_memory: 1K\n":   "",
	} {
		d, _ := newDriver(t, settings, nil)
		if err := statedir.Make(d.Config.StateDir); err != nil {
			t.Fatal(err)
		}
		err := d.admit()
		if want == "" && err != nil || want != "" && (err == nil || !regexp.MustCompile(want).MatchString(err.Error())) {
			t.Errorf("%s: %v, want %s", strings.TrimSpace(settings), err, want)
		}
	}
}
