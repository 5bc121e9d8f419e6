package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

func TestAnIDThatLeadsElsewhereIsRefused(t *testing.T) {
	h := onHost(t, "overlay")
	victim := t.TempDir()
	for _, id := range []string{"x/../../../../.." + victim, "..", ".", "a b", "-x", "x\ny", "", strings.Repeat("x", 100)} {
		for _, stage := range [][]string{{"prepare", "bookworm"}, {"run", "/dev/null", "x"}, {"cleanup"}} {
			c := h.driveWith(t, []string{"CUSTOM_ENV_CI_JOB_ID=" + id}, stage...)
			if c.status != 2 || !strings.Contains(c.stderr, "job id") {
				t.Errorf("%q %v: exit %d: %s", id, stage, c.status, c.stderr)
			}
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

func TestAJobCannotPoseAsAnother(t *testing.T) {
	h := onHost(t, "overlay")
	victim := h.prepared(t, "bookworm")
	// All that a job can set: its variables. The response file has GitLab's word.
	r := h.play(t, gitlab.Job{
		Variables: []gitlab.Variable{{Key: "CI_JOB_ID", Value: victim}, {Key: "CI_JOB_IMAGE", Value: "../etc"}, {Key: "CI_SERVER_URL", Value: "https://evil.example"}},
		Script:    []string{"hostname"},
	})
	if r.Status != gitlab.Success || strings.Contains(r.Log, "run-"+victim) {
		t.Errorf("%s: %s", r.Status, r.Log)
	}
	if c := h.run(t, victim, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("the other job's machine: %+v", c)
	}
}

func TestEqualIDsOfTwoGitLabsDoNotMeet(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "web", webPlaybook, "")
	id := newNumber()
	var others []gitlab.Result
	runner := h.runner()
	runner.OnLine = func(_ *gitlab.Running, line string) {
		if line != "first is running" {
			return
		}
		for _, services := range [][]gitlab.Image{nil, {{Name: "also:1"}}} {
			others = append(others, h.play(t, gitlab.Job{
				ID: id, Token: "glcbt-of-the-second", ServerURL: "https://other.example", Script: []string{"echo never"}, Services: services,
			}))
		}
	}
	first := h.playOn(t, runner, gitlab.Job{ID: id, Script: []string{"echo first is running", "echo first is done"}})
	for _, r := range others {
		if r.Reason != gitlab.SystemFailure {
			t.Errorf("another: %s %s", r.Status, r.Log)
		}
		wantLog(t, r.Log, "another GitLab's or runner's job has this id")
	}
	if first.Status != gitlab.Success {
		t.Errorf("first: %s", first.Log)
	}
	wantLog(t, first.Log, "first is done")
}

func TestASecondPrepareByHandTouchesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.drive(t, "prepare", "--id", id, "bookworm")
	if c.status != 2 || !strings.Contains(c.stderr, "it is running already") {
		t.Errorf("%+v", c)
	}
	if c := h.run(t, id, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("%+v", c)
	}
}

func TestASecondTryOfPrepareReplacesTheFirst(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		// Killed while its machine boots. Cleanup follows, then the second try.
		c := contract{Runner: h.runner(), dir: t.TempDir()}
		c.Driver.Prepare.Exec = faults()
		driverDies(&c, "prepare")
		r := h.playOn(t, c.Runner, gitlab.Job{Script: []string{"echo made it"}})
		if r.Status != gitlab.Success || r.Last("prepare").Try != 2 {
			t.Errorf("%s %v: %s", r.Status, r.Names(), r.Log)
		}
	})
}

func TestTwoStateDirectoriesDoNotTouchEachOthersMachines(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	other := h.elsewhere(t, filepath.Join(filepath.Dir(h.state), "second"), "overlay")
	other.before = other.leftovers(t)
	t.Cleanup(func() { os.RemoveAll(other.state) })
	if c := other.drive(t, "prepare", "--id", id, "bookworm"); c.status != 2 {
		t.Errorf("prepare: %+v", c)
	}
	if c := other.drive(t, "cleanup", "--id", id); c.status != 0 {
		t.Errorf("cleanup: %+v", c)
	}
	if c := h.run(t, id, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("%+v", c)
	}
}

// A directory has more than one name: behind a link, or where it is mounted again.
func TestAMachineIsFoundByAnotherNameOfItsStateDirectory(t *testing.T) {
	h := onHost(t, "overlay")
	link, mount := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "mount")
	must(t, os.Symlink(h.state, link), os.Mkdir(mount, 0o700))
	shell(t, "mount --bind "+h.state+" "+mount)
	t.Cleanup(func() { shell(t, "umount "+mount) })
	for _, name := range []string{link, mount} {
		other := &host{driver: h.driver, config: filepath.Join(t.TempDir(), "config.yaml"), state: name, playbooks: h.playbooks, backend: h.backend}
		other.configure(t, "")
		for _, hosts := range [][]*host{{h, other}, {other, h}} {
			id := newID()
			hosts[0].drives(t, "prepare", "--id", id, "bookworm")
			if c := hosts[1].run(t, id, "echo alive"); c.stdout != "alive\n" {
				t.Errorf("%+v", c)
			}
			hosts[1].drives(t, "cleanup", "--id", id)
			if state := shell(t, "systemctl is-active nspawn-runner-"+id+".service || true"); state != "inactive\n" {
				t.Errorf("after cleanup the machine is %s", state)
			}
			h.checkNothingLeft(t)
		}
	}
}
