package integration

import "testing"

// A script holds the job's secrets: what it starts has none of it, and only its output
// besides. The control is a process that is given it.
func TestWhatAScriptStartsDoesNotInheritTheScript(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	for _, shell := range []string{"/bin/bash", "/bin/sh"} {
		c := h.drive(t, "run", "--id", id, "--shell", shell, script(t, `#!/usr/bin/env bash
export SECRET=hunter2
open='import os; print(*sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1])' # the last one lists them
search() {
	setpriv --reuid=65534 --clear-groups --reset-env sh -c 'grep -sl "[S]ECRET=" /proc/self/fd/* /proc/[0-9]*/environ; grep -rsl "[S]ECRET=" /run /tmp'
}
python3 -c "$open"
(python3 -c "$open" | cat)
systemd-run -q --wait --pipe python3 -c "$open"
echo "found: $(search)"
echo SECRET=control > /tmp/control
echo "control: $(search 3</tmp/control | tr '\n' ' ')"
no-such-command
rm /tmp/control
exit 7`), "build_script")
		want := "0 1 2\n0 1 2\n0 1 2\nfound: \ncontrol: /proc/self/fd/3 /tmp/control \n"
		if c.code != "7" || c.stdout != want {
			t.Errorf("%s: %+v", shell, c)
		}
		wantLog(t, c.stderr, "13: no-such-command: ")
	}
}

// A script that any program executes may seek in what it inherits: that proves nothing.
func TestWhoSeeksInTheScriptChangesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	c := h.drive(t, "run", "--id", h.prepared(t, "bookworm"), "--shell", "/usr/bin/python3",
		script(t, "import os\nfor n in os.listdir('/proc/self/fd'):\n  try: os.lseek(int(n), 0, 0)\n  except OSError: pass\nexit(7)\n"), "build_script")
	if c.code != "7" {
		t.Errorf("%+v", c)
	}
}

func TestAJobsOwnUnitsOutliveASubStage(t *testing.T) {
	h := onHost(t, "overlay")
	c := h.caller(t, "bookworm")
	units := "job-db script-db run-db ci-db nspawn-runner-db nspawn-runner"
	for _, args := range [][]string{
		{"prepare"},
		{"run", script(t, "for u in "+units+"; do systemd-run -q --unit=$u sleep 1000; done"), "build_script"},
		{"run", script(t, "for u in "+units+"; do systemctl is-active $u || exit; done"), "after_script"},
		{"cleanup"},
	} {
		if status, output := c.call(t, h.driver, nil, args...); status != 0 {
			t.Errorf("%s: %s", args[0], output)
		}
	}
}
