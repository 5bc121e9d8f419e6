package integration

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// startBeside starts a second machine of a job that is like the first one, but for changes.
func (h *host) startBeside(t *testing.T, job string, role machine.Role, changes ...func(*machine.Spec)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.state, ".machines", job, "record.json"))
	must(t, err)
	var main machine.Record
	must(t, json.Unmarshal(text, &main))
	backend, err := storage.Named(main.Backend)
	must(t, err)
	machines := machine.Store{
		Dir: filepath.Join(h.state, ".machines"), Trash: filepath.Join(h.state, ".trash"), Program: h.driver,
	}
	spec := machine.Spec{
		Job: job, Role: role, Owner: main.Owner, Caller: main.Caller,
		Image: main.Image, Generation: main.Generation, Chroot: main.Chroot, Backend: backend,
		Network: network.None, BootTimeout: 3 * time.Minute, MaxRuntime: time.Hour,
		Limits: machine.Limits{
			MemoryMax: math.MaxUint64, MemorySwapMax: math.MaxUint64, CPUWeight: 50, IOWeight: 100, TasksMax: 5000, OpenFiles: 1 << 16,
		},
		Together: machine.Together{MemoryMax: math.MaxUint64, TasksMax: math.MaxUint64},
	}
	if len(changes) > 0 {
		spec.Joins = main.Leader
	}
	for _, change := range changes {
		change(&spec)
	}
	must(t, machines.Start(t.Context(), spec))
}

// machinesOf lists a job's machines, as "ID ROLE STATE".
func (h *host) machinesOf(t *testing.T, job string) (all []string) {
	t.Helper()
	var list []struct{ ID, Job, Role, State string }
	must(t, json.Unmarshal([]byte(h.drives(t, "machine", "list", "--json").stdout), &list))
	for _, m := range list {
		if m.Job == job {
			all = append(all, m.ID+" "+m.Role+" "+m.State)
		}
	}
	slices.Sort(all)
	return all
}

func TestAllMachinesOfAJobEndWithIt(t *testing.T) {
	h := onHost(t, "overlay")
	both := func(id string) []string { return []string{id + " main running", id + "-db db running"} }

	id := h.prepared(t, "bookworm")
	h.startBeside(t, id, "db")
	if got := h.machinesOf(t, id); !slices.Equal(got, both(id)) {
		t.Errorf("%q", got)
	}
	if c := h.run(t, id, "hostname"); c.stdout != "run-"+id+"\n" {
		t.Errorf("scripts are executed elsewhere: %+v", c)
	}
	if c := h.drive(t, "prepare", "--id", id+"-db", "bookworm"); c.status == 0 || !strings.Contains(c.stderr, "job "+id+" has a machine of this id") {
		t.Errorf("another job of its id: %+v", c)
	}
	if c := h.drive(t, "cleanup", "--id", id+"-db"); c.status == 0 || !strings.Contains(c.stderr, "cleanup --id "+id+"'") {
		t.Errorf("its cleanup: %+v", c)
	}
	journal := shell(t, "journalctl --sync; journalctl --quiet --output=cat --output-fields=_SYSTEMD_UNIT NSPAWN_RUNNER_JOB="+id)
	for _, unit := range []string{"nspawn-runner-" + id + ".service", "nspawn-runner-" + id + "-db.service"} {
		if !strings.Contains(journal, unit) {
			t.Errorf("%s is not in the job's journal:\n%s", unit, journal)
		}
	}
	h.drives(t, "cleanup", "--id", id)
	if got := h.machinesOf(t, id); got != nil {
		t.Errorf("after its cleanup: %q", got)
	}

	id, die := h.preparedByRunner(t)
	h.startBeside(t, id, "db")
	if got := h.garbage(t); len(got) > 0 {
		t.Errorf("as long as its gitlab-runner lives: %q", got)
	}
	// Only the main machine's cleanup is known to have begun.
	must(t, os.WriteFile(filepath.Join(h.state, ".machines", id, "stopping"), nil, 0o600))
	if got := h.garbage(t); len(got) != 2 || !strings.Contains(strings.Join(got, "\n"), "its job is over") {
		t.Errorf("%q", got)
	}
	h.drives(t, "gc")
	if got := h.machinesOf(t, id); got != nil {
		t.Errorf("after gc: %q", got)
	}
	die()
}

func TestAKilledCleanupLeavesAllOfAJobsMachinesOrNone(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	begin := func() *caller {
		c := h.caller(t, "bookworm")
		if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
			t.Fatalf("prepare: exit %d: %s", status, output)
		}
		h.startBeside(t, c.id, "db")
		return c
	}
	c := begin()
	status, output := c.call(t, faults(), []string{tellMarks}, "cleanup")
	marks := marksIn(t, output)
	if status != 0 || len(marks) < 8 || h.machinesOf(t, c.id) != nil {
		t.Fatalf("exit %d: %s", status, output)
	}
	noted := slices.Index(marks, "machine: its stop noted")
	for i, mark := range marks {
		c := begin()
		if status, output := c.call(t, faults(), []string{killAt(mark)}, "cleanup"); status != 137 {
			t.Errorf("%s: exit %d: %s", mark, status, output)
		}
		h.collect(t)
		left := h.machinesOf(t, c.id)
		if begun := i >= noted; begun && left != nil || !begun && len(left) != 2 {
			t.Errorf("killed at %s, gc leaves %q", mark, left)
		}
		c.cleanup(t)
	}
}
