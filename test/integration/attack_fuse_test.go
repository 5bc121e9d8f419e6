package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unkillable is a script that leaves a process on a FUSE file system which no signal ends.
func unkillable(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "hang.py"))
	must(t, err)
	return "cat > /root/hang.py <<'END'\n" + string(program) + "END\n" +
		"systemd-run -q --collect python3 /root/hang.py /root/fuse 50; while [ ! -e /run/hangs ]; do sleep 0.01; done\n"
}

// cgroup is the control group of a machine's service, below the root of all.
func cgroup(t *testing.T, id string) string {
	t.Helper()
	return "/sys/fs/cgroup" + strings.TrimSpace(shell(t, "systemctl show -P ControlGroup nspawn-runner-"+id+".service"))
}

func TestAttacksByProcessesThatCannotBeKilledAreHeld(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		if h.backend != "btrfs" { // whose limit needs quotas
			h.configure(t, "disk_max: 200M\n")
			t.Cleanup(func() { h.configure(t, "") })
		}
		h.addImage(t, "privileged", "")
		h.book(t, "privileged", "nspawn_runner_privileged: true")
		for _, image := range []string{"bookworm", "privileged"} {
			name := "leave a process that cannot be killed in a machine of image " + image
			id := newID()
			if c := h.drive(t, "prepare", "--allow-image=privileged", "--id", id, image); c.status != 0 {
				t.Fatalf("%+v", c)
			}
			if c := h.run(t, id, unkillable(t)); c.status != 0 {
				t.Fatalf("the machine could not try: %+v", c)
			}
			group := cgroup(t, id)
			resistsKill(t, group)
			start := time.Now()
			c := h.drive(t, "cleanup", "--id", id)
			took := time.Since(start)
			left, _ := exec.Command("grep", "-rl", "", group, "--include=cgroup.procs").Output()
			switch {
			case len(left) > 0 || h.loops(t) != "":
				gotThrough(t, name, fmt.Sprintf("%s%s after %v: %+v", left, h.loops(t), took, c))
			case c.status != 0 || c.stderr != "" || took > 5*time.Second:
				t.Errorf("%s: cleanup took %v: %+v", name, took, c)
			default:
				held(name)
			}
		}
	})
}

// resistsKill is the control: a signal ends all of the process but the thread that waits.
func resistsKill(t *testing.T, group string) {
	t.Helper()
	pid := strings.TrimSpace(shell(t, "grep -l hang.py $(find "+group+" -name cgroup.procs -exec cat {} + | sed 's,.*,/proc/&/cmdline,') | cut -d/ -f3"))
	shell(t, "kill -9 "+pid)
	await(t, "the process to be half dead", func() bool {
		states := shell(t, "sed -n 's/^State:.//p' /proc/"+pid+"/status /proc/"+pid+"/task/*/status")
		return strings.Contains(states, "Z (zombie)") && strings.Contains(states, "D (disk sleep)")
	})
}

// Not everything that cannot be killed is a job's own. Here a privileged machine hides the
// mount whose connection would have to be aborted.
func TestACleanupThatDoesNotGetEverythingSaysSoAndGCGoesOnWithIt(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "privileged", "")
	h.book(t, "privileged", "nspawn_runner_privileged: true")
	id := newID()
	h.drives(t, "prepare", "--allow-image=privileged", "--id", id, "privileged")
	shell(t, "mkdir -p /run/fusectl && mount -t fusectl none /run/fusectl")
	t.Cleanup(func() { shell(t, "umount /run/fusectl && rmdir /run/fusectl") })
	before := shell(t, "ls /run/fusectl")
	if c := h.run(t, id, unkillable(t)+"umount -l /root/fuse"); c.status != 0 {
		t.Fatalf("the machine could not try: %+v", c)
	}
	ours := strings.Fields(shell(t, "cd /run/fusectl && find . -maxdepth 1 -name '[0-9]*' -uid 0 -printf '%f\\n'"))
	ours = slices.DeleteFunc(ours, func(c string) bool { return slices.Contains(strings.Fields(before), c) })
	const says = "processes that cannot be killed: 1 ("
	c := h.drive(t, "cleanup", "--id", id)
	if c.status != 2 || !strings.Contains(c.stderr, says) || !strings.Contains(c.stderr, " python3)") {
		t.Errorf("cleanup: %+v", c)
	}
	for _, again := range [][]string{{"cleanup", "--id", id}, {"gc"}, {"prepare", "--allow-image=privileged", "--id", id, "privileged"}} {
		start := time.Now()
		if c := h.drive(t, again...); c.status == 0 || !strings.Contains(c.stderr, says) || time.Since(start) > 3*time.Second {
			t.Errorf("%v after %v: %+v", again, time.Since(start), c)
		}
	}
	// Others go on, and are not told what ran in that job.
	other := newID()
	c = h.drive(t, "prepare", "--id", other, "bookworm")
	if c.status != 0 || !strings.Contains(c.stderr, "warning: clean up after dead jobs") || strings.Contains(c.stderr, "python3") {
		t.Errorf("another job's prepare: %+v", c)
	}
	h.drives(t, "cleanup", "--id", other)
	if got := h.garbage(t); len(got) != 1 || got[0] != "machine its cleanup could not kill all of its processes" {
		t.Errorf("gc --dry-run: %q", got)
	}
	for _, c := range ours {
		shell(t, "echo 1 > /run/fusectl/"+c+"/abort")
	}
	await(t, "the process to end", func() bool {
		c := h.drive(t, "gc")
		return c.status == 0
	})
}

// What is cleaned up may never have been there, while systemd is slow to say so.
func TestACleanupOfNothingEndsNobodysFUSE(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	serve, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "fuse.py"))
	must(t, err)
	c := h.run(t, id, "cat > /fuse.py <<'END'\n"+string(serve)+"END\nmkdir -p /fine; systemd-run -q --collect python3 /fuse.py /fine; while ! grep -q ' /fine fuse' /proc/mounts; do sleep 0.01; done; stat -c %n /fine/f")
	if c.stdout != "/fine/f\n" {
		t.Fatalf("%+v", c)
	}
	slow := "/run/systemd/system-generators/slow"
	shell(t, "mkdir -p $(dirname "+slow+") && printf '#!/bin/sh\\nsleep 1\\n' > "+slow+" && chmod 755 "+slow)
	t.Cleanup(func() { os.Remove(slow) })
	reload := exec.Command("systemctl", "daemon-reload")
	must(t, reload.Start())
	h.drives(t, "cleanup", "--id", newID())
	must(t, reload.Wait())
	if c := h.run(t, id, "stat -c %n /fine/f"); c.stdout != "/fine/f\n" {
		t.Errorf("%+v", c)
	}
}
