package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An administrator makes a mistake while jobs run, moves the state directory, or goes back
// to a build that does not know a setting.
func TestAConfigurationThatChangesWhileAJobRunsDoesNotKeepItsMachine(t *testing.T) {
	h := onHost(t, "overlay")
	good, err := os.ReadFile(h.config)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(h.config, good, 0o644)) })
	for name, text := range map[string]string{
		"an unknown key":          "backned: overlay\n" + string(good),
		"no YAML":                 "{[",
		"another state directory": "state_dir: " + filepath.Join(t.TempDir(), "moved") + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := h.caller(t, "bookworm")
			if status, out := c.call(t, h.driver, nil, "prepare"); status != 0 {
				t.Fatal(out)
			}
			must(t, os.WriteFile(h.config, []byte(text), 0o644))
			status, out := c.call(t, h.driver, nil, "run", script(t, "echo works; systemd-run -q sleep 100000"), "build_script")
			if status != 0 || out != "works\n" {
				t.Errorf("run: exit %d: %s", status, out)
			}
			status, out = c.call(t, h.driver, nil, "cleanup")
			if status != 0 || strings.Contains(out, "warning: configuration "+h.config) == strings.Contains(text, "state_dir: /tmp") {
				t.Errorf("cleanup: exit %d: %s", status, out)
			}
			must(t, os.WriteFile(h.config, good, 0o644))
			h.checkNothingLeft(t)
		})
	}
}

// Without a configuration and without a machine's place nobody knows whether it is gone.
func TestACleanupThatCannotKnowWhereAMachineIsDoesNotSaySuccess(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	place := filepath.Join("/run/nspawn-runner", id)
	dir, err := os.Readlink(place)
	must(t, err, os.Remove(place)) // as of an older build
	h.configure(t, "backned: overlay\n")
	c := h.drive(t, "cleanup", "--id", id)
	h.configure(t, "")
	if c.status != 2 {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "unknown key \"backned\"")
	must(t, os.Symlink(dir, place))
}
