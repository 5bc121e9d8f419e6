package job

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// Two GitLabs may have jobs with the same id. A start that is refused for this reason must not undo the other
// one's machine.
func TestAStartWithServicesThatFailsLeavesTheMachineOfAnotherOwnerAlone(t *testing.T) {
	d, _ := newDriver(t, "", nil)
	d.Machines.Trash = filepath.Join(d.Config.StateDir, ".trash")
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(machine.Record{Format: 1, ID: "4711", Job: "4711", Owner: "another GitLab", Boot: host.BootID(), Leader: &self})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(d.Machines.Dir, "4711")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "record.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := machine.Spec{Job: "4711", Owner: "this GitLab", Recorded: func() {}}
	if err := d.startWithServices(t.Context(), spec, []orderedService{{Service: gitlab.Service{Name: "postgres"}}}); err == nil {
		t.Error("no error")
	}
	if err := d.end(t.Context(), "4711", "this GitLab"); err == nil {
		t.Error("it may be ended")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("it was touched: %v, %v", entries, err)
	}
}
