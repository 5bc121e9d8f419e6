package integration

import (
	"os"
	"path/filepath"
	"testing"
)

// A gitlab-runner that is killed leaves the job's token and scripts in a directory.
func TestTheDirectoryOfADeadGitlabRunnerGoesWithItsMachine(t *testing.T) {
	h := onHost(t, "overlay")
	var later []func()
	for name, test := range map[string]struct {
		change string // a shell command in the directory's parent; its own is called $1
		stays  bool
	}{
		"as it was":                         {change: "mkdir -p $1/script0 && echo secret > $1/script0/script"},
		"open to others":                    {change: "chmod 755 $1", stays: true},
		"somebody else's":                   {change: "chown 65534 $1", stays: true},
		"a link":                            {change: "mv $1 other && ln -s other $1", stays: true},
		"another one of the same name":      {change: "mv $1 other && mkdir -m 700 $1 && echo > $1/file", stays: true},
		"with links to what is not its own": {change: "mkdir other && echo > other/file && ln -s ../other $1/other && ln -s $PWD/other $1/script1"},
	} {
		above := t.TempDir()
		dir := filepath.Join(above, "custom-executor12345")
		must(t, os.Mkdir(dir, 0o700))
		response := filepath.Join(dir, "response.json")
		shell(t, "install -m 600 "+writeResponse(t, newNumber(), "bookworm")+" "+response)
		c := h.caller(t, "bookworm")
		if status, out := c.call(t, h.driver, []string{"JOB_RESPONSE_FILE=" + response, "TMPDIR=" + dir}, "prepare"); status != 0 {
			t.Fatal(out)
		}
		h.drives(t, "gc")
		shell(t, "cd "+above+" && set custom-executor12345 && "+test.change)
		later = append(later, func() {
			if exists(dir) != test.stays {
				t.Errorf("%s: it is there: %v", name, exists(dir))
			}
			if other := filepath.Join(above, "other"); exists(other) && shell(t, "ls "+other) == "" {
				t.Errorf("%s: what it leads to is empty", name)
			}
		})
		c.die()
	}
	h.drives(t, "gc")
	for _, check := range later {
		check()
	}
}
