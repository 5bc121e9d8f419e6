package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// withServices gives a caller's job services of the image any.
func (c *caller) withServices(t *testing.T, names ...string) {
	t.Helper()
	var services []map[string]any
	for _, name := range names {
		services = append(services, map[string]any{"name": "any", "alias": name})
	}
	c.order(t, services...)
}

// order gives a caller's job services.
func (c *caller) order(t *testing.T, services ...map[string]any) {
	t.Helper()
	path := strings.TrimPrefix(c.env[0], "JOB_RESPONSE_FILE=")
	text, err := os.ReadFile(path)
	must(t, err)
	var job map[string]any
	must(t, json.Unmarshal(text, &job))
	job["services"] = services
	text, err = json.Marshal(job)
	must(t, err, os.WriteFile(path, text, 0o600))
}

func TestServicesEndWithTheMachineOfTheirJobAndWithItsGitlabRunner(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	begin := func() *caller {
		c := h.caller(t, "bookworm")
		c.withServices(t, "a", "b")
		if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
			t.Fatalf("exit %d: %s", status, output)
		}
		if got := h.machinesOf(t, c.id); len(got) != 3 {
			t.Fatalf("%q", got)
		}
		return c
	}
	c := begin()
	status, output := c.call(t, h.driver, nil, "run", script(t, "systemctl --force --force poweroff; sleep 100"), "build_script")
	if status != 2 {
		t.Errorf("exit %d: %s", status, output)
	}
	await(t, "its services to end", func() bool {
		return strings.TrimSpace(shell(t, "systemctl list-units --plain --no-legend --state=active,deactivating 'nspawn-runner-"+c.id+"-*'")) == ""
	})
	// Nothing has it start again.
	_ = exec.Command("systemctl", "start", "nspawn-runner-"+c.id+"-service1.service").Run()
	if got := shell(t, "systemctl list-units --plain --no-legend --state=active 'nspawn-runner-"+c.id+"*'"); got != "" {
		t.Error(got)
	}
	c.cleanup(t)

	c = begin()
	c.die()
	h.collect(t)
	if got := h.machinesOf(t, c.id); got != nil {
		t.Errorf("gc leaves %q", got)
	}

	// A service that ends takes nothing with it.
	c = begin()
	shell(t, "systemctl stop nspawn-runner-"+c.id+"-service1.service")
	if status, output := c.call(t, h.driver, nil, "run", script(t, "ls /sys/class/net"), "build_script"); status != 0 || !strings.Contains(output, "host0") {
		t.Errorf("exit %d: %s", status, output)
	}
	if got := h.garbage(t); len(got) > 0 {
		t.Errorf("%q", got)
	}
	c.cleanup(t)
}

func TestAKillOfAPrepareWithServicesIsMendedByWhatComesNext(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	begin := func() *caller {
		c := h.caller(t, "bookworm")
		c.withServices(t, "a", "b")
		return c
	}
	c := begin()
	status, output := c.call(t, faults(), []string{tellMarks}, "prepare")
	if status != 0 {
		t.Fatalf("exit %d: %s", status, output)
	}
	marks := slices.DeleteFunc(marksIn(t, output), func(mark string) bool {
		return !strings.Contains(mark, "service") && mark != "machine: up"
	})
	c.cleanup(t)
	if len(marks) < 5 {
		t.Fatalf("%q of %s", marks, output)
	}
	for _, mark := range marks {
		rescues := []rescue{byCleanup, byGCAfterTheEnd}
		if mark == "prepare: machines of services up" {
			rescues = append(rescues, byGC, byTheNextPrepare)
		}
		for _, rescue := range rescues {
			c := begin()
			if status, output := c.call(t, faults(), []string{killAt(mark)}, "prepare"); status != 137 {
				t.Errorf("%s: exit %d: %s", mark, status, output)
			}
			rescue.do(t, c)
			if h.checkNothingLeft(t); t.Failed() {
				t.Fatalf("killed at %q, then %s", mark, rescue.name)
			}
		}
	}
	// The same job again, as gitlab-runner does.
	c = begin()
	if status, output := c.call(t, faults(), []string{killAt("prepare: machines of services up")}, "prepare"); status != 137 {
		t.Errorf("exit %d: %s", status, output)
	}
	if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 || len(h.machinesOf(t, c.id)) != 3 {
		t.Errorf("exit %d: %s", status, output)
	}
	c.cleanup(t)

	// And the helper of one of the machines.
	tellHelper(t, killAt("boot: network joined"))
	c = begin()
	if status, output := c.call(t, faults(), nil, "prepare"); status != 2 || !strings.Contains(output, "service any: machine run-"+c.id+"-service") {
		t.Errorf("exit %d: %s", status, output)
	}
	h.checkNothingLeft(t)
}
