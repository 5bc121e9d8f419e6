package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	wantLog(t, c.stderr, "out of memory")
	if strings.Count(c.stderr, "\n") != 1 {
		t.Errorf("want one line: %q", c.stderr)
	}
	if c := h.run(t, id, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("the machine: %+v", c)
	}
}

func TestInAVMTheLimitsAreThoseOfTheMachinesProcesses(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	h.configure(t, "tasks_max: 100\n")
	t.Cleanup(func() { h.configure(t, "") })
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "for i in $(seq 200); do sleep 5 & done; echo all started")
	if strings.Contains(c.stdout, "all started") && !strings.Contains(c.stderr, "fork") {
		t.Errorf("200 processes in a machine of 100: %+v", c)
	}
	cgroup := "/sys/fs/cgroup/machine.slice/machine-ci.slice/nspawn-runner-" + id + ".service/"
	for file, want := range map[string]string{"pids.max": "100\n", "cpu.weight": "50\n"} {
		if got := shell(t, "cat "+cgroup+file); got != want {
			t.Errorf("%s: %q", file, got)
		}
	}
}

func TestInAVMNoMachineOpensTheHostsDisk(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	playbook := filepath.Join(h.playbooks, "bookworm.yaml")
	t.Cleanup(func() { os.Remove(playbook) })
	for _, privileged := range []bool{false, true} {
		must(t, os.WriteFile(playbook, []byte(fmt.Sprintf("- hosts: all\n  vars:\n    nspawn_runner_privileged: %v\n", privileged)), 0o644))
		c := h.run(t, h.prepared(t, "bookworm"), "mknod /disk b 254 0 && head -c 512 /disk && echo read it")
		if c.status != 1 || strings.Contains(c.stdout, "read it") {
			t.Errorf("privileged %v: %+v", privileged, c)
		}
	}
}

func TestLeaveMachinesRunning(t *testing.T) {
	needVM(t)
	if os.Getenv("NSPAWN_RUNNER_DRIVER") == "" || !strings.Contains(strings.Join(os.Args, " "), "LeaveMachinesRunning") {
		t.Skip("is the first half of the power cut's test and runs only by name")
	}
	h := install(t, "overlay")
	for range 2 {
		if c := h.drive(t, "prepare", "--id", newID(), "bookworm"); c.status != 0 {
			t.Fatal(c.stderr)
		}
	}
	shell(t, "sync")
	fmt.Println("machines are running")
	time.Sleep(time.Hour) // until the power is cut
}

func TestAfterAPowerCutTheNextPrepareRemovesWhatWasLeft(t *testing.T) {
	needVM(t)
	h := install(t, "overlay")
	left, err := os.ReadDir(filepath.Join(h.state, ".machines"))
	must(t, err)
	if len(left) != 2 {
		t.Skipf("there was no power cut before: %d machines are left", len(left))
	}
	r := h.play(t, gitlab.Job{Script: []string{"echo works"}})
	if r.Status != gitlab.Success {
		t.Error(r.Log)
	}
	h.before = nil
	await(t, "the trash to be emptied", func() bool { return len(h.leftovers(t)) == 0 })
}
