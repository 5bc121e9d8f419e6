package doctor

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/machine"
)

// newDoctor looks at a host with a configuration, and with playbooks by the names of their
// images; bookworm, trixie and sid have chroots.
func newDoctor(t *testing.T, file string, playbooks map[string]string) Doctor {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("images are for root")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, text := range playbooks {
		write(name+".yaml", text)
	}
	for _, name := range []string{"bookworm", "trixie", "sid"} {
		if err := os.MkdirAll(filepath.Join(dir, "state", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	settings, err := config.Load(write("config", "state_dir: "+dir+"/state\nplaybook_dir: "+dir+"\n"+file))
	if err != nil {
		t.Fatal(err)
	}
	return Doctor{
		Jobs: &job.Driver{
			Config:   settings,
			Images:   &image.Store{StateDir: settings.StateDir, PlaybookDirs: []string{settings.PlaybookDir, settings.StateDir}},
			Machines: machine.Store{Dir: filepath.Join(settings.StateDir, ".machines")},
			Note:     func(string, ...any) {},
		},
		Leftovers: func(context.Context) ([]leftover.Item, error) { return nil, nil },
	}
}
