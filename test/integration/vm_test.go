package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/starter"
	"nspawn-runner/test/gitlab"
)

// needVM skips a test of what only a kernel of one's own can show: a lab has
// no control group controllers, and its devices are the outer machine's.
func needVM(t *testing.T) {
	t.Helper()
	if os.Getenv("NSPAWN_RUNNER_HOST") != "vm" {
		t.Skip("needs a kernel of its own, and so runs in the VM: 'go tool mage test:vm'")
	}
}

func TestInAVMAJobThatNeedsTooMuchMemoryLosesAProcessAndIsToldSo(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	h.configure(t, "memory_max: 300M\nmemory_swap_max: 0\n")
	t.Cleanup(func() { h.configure(t, "") })
	id := h.prepared(t, "bookworm")
	eat := "exec python3 -c 'x = bytearray(1 << 30); x[::4096] = b\"x\" * len(x[::4096])'"
	c := h.run(t, id, eat)
	if c.status != 1 || c.code != "137" {
		t.Errorf("exit %d, code %q: %s", c.status, c.code, c.stderr)
	}
	wantLog(t, c.stderr, "out of memory: the job used 300 MiB, the limit of image bookworm is 300 MiB (memory_max); killed was python3, with 2")
	if strings.Count(c.stderr, "\n") != 1 {
		t.Errorf("want one line: %q", c.stderr)
	}
	if c := h.run(t, id, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("the machine: %+v", c)
	}
	// Files fill the memory, and what is killed is its service manager: not its way to the network.
	pasta := "$(cat /sys/fs/cgroup/machine.slice/machine-ci.slice/nspawn-runner-" + id + ".service/network/cgroup.procs)"
	if score := shell(t, "cat /proc/"+pasta+"/oom_score_adj"); score != "-1000\n" {
		t.Errorf("pasta's score: %q", score)
	}
	c = h.run(t, id, "head -c 1G /dev/zero >/dev/shm/x; sleep 100")
	if c.status != 2 {
		t.Errorf("exit %d", c.status)
	}
	wantLog(t, c.stderr, "machine run-"+id+" ran out of memory (memory_max)")
}

func TestInAVMAServiceThatNeedsTooMuchMemoryIsToldToItsJob(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "service_memory_max: 150M\nmemory_swap_max: 0\n")
	r := h.play(t, gitlab.Job{
		Services: []gitlab.Image{{Name: "any", Command: once("8001", `x = bytearray(1 << 30); x[::4096] = b"x" * len(x[::4096])`)}},
		Script: []string{
			"until (exec 3<>/dev/tcp/127.0.0.1/8001) 2>/dev/null; do sleep 0.1; done",
			"while (exec 3<>/dev/tcp/127.0.0.1/8001) 2>/dev/null; do sleep 0.1; done; sleep 1; exit 5",
		},
	})
	if r.Reason != gitlab.ScriptFailure || r.ExitCode != 5 {
		t.Errorf("%s %d", r.Reason, r.ExitCode)
	}
	wantLog(t, r.Log, "warning: service any: out of memory: the service used 150 MiB, the limit of image any is 150 MiB (service_memory_max)",
		"the server says goodbye\n")
}

func TestInAVMAJobsLogEndsWithTheMemoryItUsed(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	r := h.play(t, gitlab.Job{Script: []string{"head -c 50M /dev/zero | tail | wc -c"}})
	found := used.FindStringSubmatch(r.Log)
	if found == nil {
		t.Fatal(r.Log)
	}
	if memory, _ := strconv.Atoi(found[3]); memory < 50 {
		t.Errorf("%q", found[0])
	}
}

func TestInAVMTheLimitsAreThoseOfTheMachinesProcesses(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	h.configure(t, "tasks_max: 100\ncpus: 1.5\nopen_files: 2000\n")
	t.Cleanup(func() { h.configure(t, "") })
	id := h.prepared(t, "bookworm")
	// Programs look for their limits at the root of their control groups, and make groups
	// with limits of their own there.
	c := h.run(t, id, "cd /sys/fs/cgroup; cat pids.max cpu.max; test $(cat memory.max) -gt 0; for c in cpu memory pids; do grep -qw $c cgroup.controllers cgroup.subtree_control || echo no $c; done")
	if c.status != 0 || c.stdout != "100\n150000 100000\n" {
		t.Errorf("in the machine: %+v", c)
	}
	// What the kernel means to be delegated is the machine's: lxc needs it.
	c = h.run(t, id, "cd /sys/fs/cgroup; stat -c '%u %n' $(cat /sys/kernel/cgroup/delegate)")
	if c.status != 0 || !strings.Contains(c.stdout, "0 memory.oom.group\n") || strings.Count("\n"+c.stdout, "\n0 ") != strings.Count(c.stdout, "\n") {
		t.Errorf("delegated files: %+v", c)
	}
	c = h.run(t, id, "for i in $(seq 200); do sleep 1000 & done; echo all started")
	if c.status != 1 || !strings.Contains(c.stderr, "fork") {
		t.Errorf("200 processes in a machine of 100: %+v", c)
	}
	wantLog(t, c.stderr, "out of processes: the limit of image bookworm is 100, threads included (tasks_max)\n")
	cgroup := "/sys/fs/cgroup/machine.slice/machine-ci.slice/nspawn-runner-" + id + ".service/"
	for file, want := range map[string]string{"pids.max": "100\n", "cpu.weight": "50\n", "cpu.max": "150000 100000\n"} {
		if got := shell(t, "cat "+cgroup+file); got != want {
			t.Errorf("%s: %q", file, got)
		}
	}
	if c := h.run(t, id, "ulimit -Sn; ulimit -Hn"); c.stdout != "1024\n2000\n" {
		t.Errorf("open files: %+v", c)
	}
}

func TestInAVMNoMachineOpensTheHostsDisk(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	playbook := filepath.Join(h.playbooks, "bookworm.yaml")
	t.Cleanup(func() { os.Remove(playbook) })
	number := strings.Replace(strings.TrimSpace(shell(t, "findmnt --noheadings --output MAJ:MIN --target "+h.state)), ":", " ", 1)
	open := "mknod /disk b " + number + " && head -c 512 /disk >/dev/null && echo read it"
	if got := shell(t, open+"; rm /disk"); got != "read it\n" {
		t.Errorf("nor does the host, so this shows nothing: %s", got)
	}
	for _, privileged := range []bool{false, true} {
		must(t, os.WriteFile(playbook, []byte(fmt.Sprintf("- hosts: all\n  vars:\n    nspawn_runner_privileged: %v\n", privileged)), 0o644))
		c := h.run(t, h.prepared(t, "bookworm"), open)
		if c.status != 1 || strings.Contains(c.stdout, "read it") {
			t.Errorf("privileged %v: %+v", privileged, c)
		}
	}
}

func TestInAVMAStepOfTheClockEndsNoJob(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	c := h.caller(t, "bookworm")
	if status, out := c.call(t, h.driver, nil, "prepare"); status != 0 {
		t.Fatal(out)
	}
	for _, step := range []string{"+ 2 years", "- 4 years", "+ 2 years"} {
		shell(t, "date --set \"$(date '+%F %T') "+step+"\"")
		h.drives(t, "gc")
		if status, out := c.call(t, h.driver, nil, "run", script(t, "echo alive"), "build_script"); out != "alive\n" {
			t.Errorf("%s: exit %d: %s", step, status, out)
		}
	}
	c.cleanup(t)
}

func TestAfterARebootTheNextPrepareRemovesWhatWasLeft(t *testing.T) {
	needVM(t)
	h := install(t, "overlay")
	left := h.left(t)
	if len(left) != 2 {
		t.Errorf("these machines are left: %v", left)
	}
	for _, id := range left {
		// The machine did not hold up the reboot.
		unit := "nspawn-runner-" + id + ".service"
		journal := shell(t, "journalctl --boot=-1 --output=cat --unit="+unit)
		if !strings.Contains(journal, "Stopped "+unit) || strings.Contains(journal, "timed out") {
			t.Errorf("the last words of %s:\n%s", unit, journal)
		}
	}
	h.worksAndLeavesNothing(t)
}

func TestAfterAPowerCutGarbageCollectionRemovesWhatWasLeft(t *testing.T) {
	needVM(t)
	h := install(t, "overlay")
	if left := h.left(t); len(left) != 10 {
		t.Errorf("these machines are left: %v", left)
	}
	wantLog(t, strings.Join(h.garbage(t), "\n"), "machine the host has been rebooted since")
	h.drives(t, "gc")
	if left := h.left(t); len(left) > 0 {
		t.Errorf("after gc: %v", left)
	}
	if got := h.garbage(t); len(got) > 0 {
		t.Errorf("after gc: %q", got)
	}
	h.worksAndLeavesNothing(t)
}

// These run last in a boot of the VM that ends while machines run: with a reboot,
// and with a power cut in the middle of the builds that TestUntilThePowerIsCut
// starts then.
func TestLeaveTwoMachinesRunning(t *testing.T) { leaveRunning(t, 2) }
func TestLeaveTenMachinesRunning(t *testing.T) { leaveRunning(t, 10) }

// leaveRunning leaves an even number of machines running: those of jobs, and of their services
// without an init.
func leaveRunning(t *testing.T, machines int) {
	t.Helper()
	needVM(t)
	h := install(t, "overlay")
	for range machines / 2 {
		id := newID()
		h.drives(t, "prepare", "--id", id, "bookworm")
		h.startBeside(t, id, "service1", func(spec *machine.Spec) {
			spec.Service, spec.NoFUSE, spec.NoNesting = "sleeper", true, true
			spec.Program = &machine.Program{StopSignal: unix.SIGTERM, Plan: starter.Plan{Command: []string{"sleep", "infinity"}}}
		})
	}
	shell(t, "sync")
}

// worksAndLeavesNothing runs the first job after a boot.
func (h *host) worksAndLeavesNothing(t *testing.T) {
	t.Helper()
	r := h.play(t, gitlab.Job{Script: []string{"echo works"}})
	if r.Status != gitlab.Success {
		t.Error(r.Log)
	}
	await(t, "the trash to be emptied", func() bool { return len(h.leftovers(t)) == 0 })
}

// left are the ids of the jobs' machines that there are, dead or alive; those in
// which generations are tested have names.
func (h *host) left(t *testing.T) (ids []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.state, ".machines"))
	must(t, err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "test-") {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// runsOutOfMemory starts a program that needs more memory than its machine may have, and returns how
// it ended and what it printed.
func (h *host) runsOutOfMemory(t *testing.T, limit uint64, command ...string) (end machine.End, printed string) {
	t.Helper()
	id := h.prepared(t, "bookworm")
	h.startBeside(t, id, "service1", func(spec *machine.Spec) {
		spec.Service, spec.NoFUSE, spec.NoNesting = "hungry", true, true
		spec.Limits.MemoryMax, spec.Limits.MemorySwapMax = limit, 0
		spec.Program = &machine.Program{StopSignal: unix.SIGTERM, Plan: starter.Plan{Command: command}}
	})
	dir := filepath.Join(h.state, ".machines", id+"-service1")
	await(t, "its end", func() bool { _, err := os.Stat(filepath.Join(dir, "end.json")); return err == nil })
	text := shell(t, "cat "+dir+"/end.json")
	if json.Unmarshal([]byte(text), &end) != nil || end.Code != 137 || end.Signal != "KILL" || !end.OutOfMemory {
		t.Error(text)
	}
	return end, shell(t, "tail -c +9 "+dir+"/output") // after a header
}

func TestInAVMAProgramThatNeedsTooMuchMemoryEndsForThatReason(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	end, printed := h.runsOutOfMemory(t, 100<<20, "python3", "-c", "print(open('/sys/fs/cgroup/memory.max').read(), flush=True); x = b'x' * (1 << 30)")
	if end.Usage == nil || end.Usage.Memory < 50<<20 || end.Usage.Memory > 100<<20 || end.Usage.Processor == 0 {
		t.Errorf("%+v", end.Usage)
	}
	if !strings.Contains(printed, "104857600") {
		t.Errorf("the program does not see its limit: %q", printed)
	}
}

// What fills the memory is a file, and the largest processes are those of the host that keep the
// machine: the kernel must not choose them.
func TestInAVMAProgramThatFillsItsMemoryWithFilesEndsForThatReason(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	_, printed := h.runsOutOfMemory(t, 60<<20, "bash", "-c", "sleep 1; echo -1000 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj; exec head -c 1G /dev/zero >/dev/shm/x")
	if !strings.HasSuffix(printed, "\n0\n") {
		t.Errorf("the program protects itself: %q", printed)
	}
}
