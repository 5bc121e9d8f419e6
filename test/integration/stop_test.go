package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// everyStage are all processes of a small job with all its optional parts.
var everyStage = []string{"config", "prepare", "prepare_script", "get_sources", "build_script", "after_script", "cleanup_file_variables", "cleanup"}

func stopJob() gitlab.Job {
	return gitlab.Job{ID: newNumber(), Image: gitlab.Image{Name: "bookworm"}, Script: []string{"echo built"}, AfterScript: []string{"echo after"}}
}

// signalled is a gitlab-runner whose driver gets a signal in a stage, or
// sub-stage, when it is that old. The driver that comes next gets none.
func (h *host) signalled(stage string, age time.Duration, signal syscall.Signal) gitlab.Runner {
	runner := h.runner()
	sent := false
	runner.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
		if sent || p.Stage != stage && p.SubStage != stage {
			return
		}
		sent = true
		time.AfterFunc(age, func() { p.SignalGroup(signal) })
	}
	return runner
}

func TestSIGTERMInAnyStageLeavesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	for _, stage := range everyStage {
		// At once, and a little later, when the stage is well under way.
		for _, delay := range []time.Duration{0, 40 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s after %v", stage, delay), func(t *testing.T) {
				job := stopJob()
				r := h.playOn(t, h.signalled(stage, delay, syscall.SIGTERM), job)
				if stage == "cleanup" {
					// Before it can ask for the signal, even a cleanup dies of it.
					h.drive(t, "cleanup", "--id", fmt.Sprint(job.ID))
				}
				for _, s := range r.Stages {
					// The runtime needs a moment to ask for the signal; before,
					// it kills, which GitLab takes for a system failure too.
					if s.ExitStatus > 2 || s.Stage == "cleanup" && s.Name() != stage && s.ExitStatus != 0 {
						t.Errorf("%s: %+v", s.Name(), s)
					}
				}
				h.checkNothingLeft(t)
			})
		}
	}
}

func TestACleanupGoesOnThroughASIGTERM(t *testing.T) {
	h := onHost(t, "overlay")
	runner := h.runner()
	runner.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
		if p.Stage == "cleanup" {
			for delay := range 20 {
				time.AfterFunc(time.Duration(10+5*delay)*time.Millisecond, func() { p.SignalGroup(syscall.SIGTERM) })
			}
		}
	}
	r := h.playOn(t, runner, stopJob())
	if c := r.Last("cleanup"); c.ExitStatus != 0 {
		t.Errorf("%+v", c)
	}
	h.checkNothingLeft(t)
}

func TestAScriptWhoseDriverWasKilledDoesNotReachTheNextSubStage(t *testing.T) {
	h := onHost(t, "overlay")
	runner := h.runner()
	var build *gitlab.Process
	runner.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
		if p.SubStage == "build_script" {
			build = p
		}
	}
	runner.OnLine = func(_ *gitlab.Running, line string) {
		if line == "ready" {
			build.SignalGroup(syscall.SIGKILL)
		}
	}
	job := stopJob()
	job.Script = []string{"echo ready; sleep 1001"}
	job.AfterScript = []string{"echo left: $(pgrep -c sleep)"}
	r := h.playOn(t, runner, job)
	if r.Reason != gitlab.SystemFailure {
		t.Errorf("%s %s", r.Status, r.Reason)
	}
	wantLog(t, r.Log, "left: 0")
}

func TestACanceledScriptStopsWithAllItsChildren(t *testing.T) {
	h := onHost(t, "overlay")
	runner := h.runner()
	runner.OnLine = func(job *gitlab.Running, line string) {
		if line == "ready" {
			job.Cancel()
		}
	}
	job := stopJob()
	job.Script = []string{"(trap '' TERM; setsid sleep 1001) & setsid sleep 1002 & echo ready; sleep 1003"}
	job.AfterScript = []string{"echo left: $(pgrep -c sleep)"}
	start := time.Now()
	r := h.playOn(t, runner, job)
	if r.Status != gitlab.Canceled {
		t.Errorf("%s: %s", r.Status, r.Log)
	}
	wantLog(t, r.Log, "left: 0")
	if took := time.Since(start); took > 25*time.Second {
		t.Errorf("took %v", took)
	}
	if s := r.Last("build_script"); s.ExitStatus != 2 || s.Killed {
		t.Errorf("%+v", s)
	}
}

func TestAJobThatTakesTooLongIsStopped(t *testing.T) {
	h := onHost(t, "overlay")
	job := stopJob()
	job.Timeout = 4 * time.Second
	job.Script = []string{"sleep 1000"}
	r := h.playOn(t, h.runner(), job)
	if r.Reason != gitlab.Timeout || r.Last("after_script") != nil {
		t.Errorf("%s %v", r.Reason, r.Names())
	}
}

func TestAPrepareThatNobodyListensToAnyMoreStartsNoMachine(t *testing.T) {
	h := onHost(t, "overlay")
	nobody, stderr, err := os.Pipe()
	must(t, err, nobody.Close())
	defer stderr.Close()
	prepare := exec.Command(h.driver, "--config", h.config, "prepare")
	prepare.Env = append(os.Environ(), "JOB_RESPONSE_FILE="+writeResponse(t, newNumber(), "bookworm"))
	prepare.Stderr = stderr
	if err := prepare.Run(); err == nil {
		t.Error("it prepared a machine for a gitlab-runner that is dead")
	}
}

func TestAMachineWhoseGitlabRunnerIsDeadIsRemovedByTheNextPrepare(t *testing.T) {
	h := onHost(t, "overlay")
	id, kill := h.preparedByRunner(t)
	shell(t, "systemctl is-active nspawn-runner-"+id+".service")
	other := h.prepared(t, "bookworm")
	shell(t, "systemctl is-active nspawn-runner-"+id+".service")

	kill()
	third := h.prepared(t, "bookworm")
	entries := strings.Fields(shell(t, "ls "+filepath.Join(h.state, ".machines")))
	slices.Sort(entries)
	want := []string{other, third}
	slices.Sort(want)
	if !slices.Equal(entries, want) {
		t.Errorf("machines: %v, want %v", entries, want)
	}
}

func TestAMachineOfAnEarlierBuildIsRunAndCleanedUp(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	path := filepath.Join(h.state, ".machines", id, "record.json")
	data, err := os.ReadFile(path)
	must(t, err)
	var now map[string]any
	must(t, json.Unmarshal(data, &now))
	if now["format"] != 1.0 {
		t.Fatalf("format %v: add a test that starts from a record of format 1", now["format"])
	}
	// What the first build wrote, in its words, with this machine's values.
	golden, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "record-1.json"))
	must(t, err)
	var old map[string]any
	must(t, json.Unmarshal(golden, &old))
	for key := range old {
		value, ok := now[key]
		if !ok {
			t.Errorf("%s: in records of format 1, but not written any more", key)
		}
		old[key] = value
	}
	data, err = json.Marshal(old)
	must(t, err, os.WriteFile(path, data, 0o600))
	if c := h.run(t, id, "echo works"); c.stdout != "works\n" {
		t.Errorf("%+v", c)
	}
}

func TestAMachineOfALaterBuildIsLeftAlone(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	path := filepath.Join(h.state, ".machines", id, "record.json")
	data, err := os.ReadFile(path)
	must(t, err)
	later := strings.Replace(string(data), `"format": 1`, `"format": 99`, 1)
	must(t, os.WriteFile(path, []byte(later), 0o600))
	c := h.run(t, id, "true")
	if c.status != 2 || !strings.Contains(c.stderr, "made by a newer nspawn-runner") {
		t.Errorf("%+v", c)
	}
	must(t, os.WriteFile(path, data, 0o600))
}

func TestASIGTERMAtAnyMomentOfRunLeavesNoScript(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	path := script(t, "exec sleep 1234567")
	stopped := 0
	// How long the driver takes until it handles the signal depends on the machine.
	for i := 0; i < 60 || stopped < 10; i++ {
		if i == 1000 {
			t.Fatalf("only %d of %d handled the signal, so this shows little", stopped, i)
		}
		cmd := exec.Command(h.driver, "--config", h.config, "run", "--id", id, path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		must(t, cmd.Start())
		time.Sleep(time.Duration(3000+i*150) * time.Microsecond) // the moment is the point
		must(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM))
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != 2 {
			continue // killed before it could ask for the signal
		}
		stopped++
		if c := h.run(t, id, "pgrep -f 'sleep 1234567'; true"); c.stdout != "" {
			t.Fatalf("after %d: still there: %s", i, c.stdout)
		}
	}
	h.run(t, id, "pkill -f 'sleep 1234567'; true")
}
