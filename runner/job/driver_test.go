package job

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
)

// newDriver is a driver with chroots called bookworm, trixie and sid, playbooks, by name
// and settings, and a configuration. What it notes goes to said.
func newDriver(t testing.TB, file string, playbooks map[string]string) (d *Driver, said *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bookworm", "trixie", "sid"} {
		if err := os.MkdirAll(filepath.Join(dir, "state", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range playbooks {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte("state_dir: "+dir+"/state\nplaybook_dir: "+dir+"\n"+file), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	said = &bytes.Buffer{}
	return &Driver{
		Config: settings, ConfigFile: path,
		Images:   &image.Store{StateDir: settings.StateDir, PlaybookDirs: []string{settings.PlaybookDir, settings.StateDir}},
		Machines: machine.Store{Dir: filepath.Join(settings.StateDir, ".machines")},
		Note:     func(format string, args ...any) { fmt.Fprintf(said, format+"\n", args...) },
	}, said
}
