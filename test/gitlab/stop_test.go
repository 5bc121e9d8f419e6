package gitlab_test

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/test/gitlab"
)

const upTo = "config prepare prepare_script get_sources "

// everyStage are the calls of a job that has most of them.
var everyStage = []string{"config", "prepare", "prepare_script", "get_sources", "restore_cache", "build_script", "after_script", "archive_cache", "upload_artifacts_on_success", "cleanup_file_variables"}

func TestACanceledStageIsTerminatedAndCleanedUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stage  string
		exit   int
		stages string
		status gitlab.Status
		reason gitlab.Reason
	}{
		{"config", 2, "config cleanup", gitlab.Canceled, ""},
		{"prepare", 2, "config prepare cleanup", gitlab.Canceled, ""},
		{"prepare", 1, "config prepare cleanup", gitlab.Failed, gitlab.ScriptFailure},
		{"prepare", 0, "config prepare cleanup", gitlab.Canceled, ""},
		{"prepare_script", 2, "config prepare prepare_script cleanup", gitlab.Canceled, ""},
		{"get_sources", 2, upTo + "cleanup", gitlab.Canceled, ""},
		{"get_sources", 1, upTo + "cleanup", gitlab.Canceled, ""},
	} {
		t.Run(c.stage, func(t *testing.T) {
			f := newFake(t, map[string][]act{c.stage: {{Hang: true, Exit: c.exit}}})
			f.at(c.stage, (*gitlab.Running).Cancel)
			r := f.play(full())
			wantNames(t, r, c.stages)
			code := 0
			if c.reason == gitlab.ScriptFailure {
				code = 1
			}
			wantEnd(t, r, c.status, c.reason, code)
			if !r.Last(c.stage).Terminated || !f.lastCall(c.stage).Terminate {
				t.Error("the stage was not terminated")
			}
		})
	}
}

func TestACanceledScriptIsFollowedByAfterScript(t *testing.T) {
	t.Parallel()
	for _, exit := range []int{0, 1, 2} {
		t.Run("", func(t *testing.T) {
			f := newFake(t, map[string][]act{"build_script": {{Hang: true, Exit: exit}}, "upload_artifacts_on_failure": nil})
			f.at("build_script", (*gitlab.Running).Cancel)
			job := full()
			job.Artifacts = append(job.Artifacts, gitlab.Artifact{Paths: []string{"b"}, When: gitlab.OnFailure})
			r := f.play(job)
			wantNames(t, r, upTo+"restore_cache build_script after_script archive_cache_on_failure upload_artifacts_on_failure cleanup_file_variables cleanup")
			wantEnd(t, r, gitlab.Canceled, "", 0)
			if script := f.lastCall("upload_artifacts_on_failure").Script; !strings.Contains(script, "--path a") || strings.Contains(script, "--path b") {
				t.Errorf("not only what is kept always is uploaded: %s", script)
			}
		})
	}
}

func TestACancelBehindTheScriptIsIgnored(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"after_script", "archive_cache", "cleanup_file_variables"} {
		t.Run(stage, func(t *testing.T) {
			f := newFake(t, nil)
			f.OnStart = func(job *gitlab.Running, p *gitlab.Process) {
				if p.SubStage == stage {
					job.Cancel()
				}
			}
			r := f.play(full())
			wantEnd(t, r, gitlab.Success, "", 0)
			if r.Last(stage).Terminated {
				t.Error("the stage was terminated")
			}
		})
	}
}

func TestAnAbortLeavesNothingButCleanup(t *testing.T) {
	t.Parallel()
	for i, stage := range everyStage {
		for name, abort := range map[string]func(*gitlab.Running){
			"abort":         (*gitlab.Running).Abort,
			"second cancel": func(job *gitlab.Running) { job.Cancel(); job.Cancel() },
		} {
			if name == "second cancel" && stage != "build_script" && stage != "after_script" {
				continue
			}
			t.Run(stage+" "+name, func(t *testing.T) {
				f := newFake(t, map[string][]act{stage: {{Hang: true, Exit: 2}}})
				f.at(stage, abort)
				r := f.play(full())
				wantNames(t, r, strings.Join(everyStage[:i+1], " ")+" cleanup")
				wantEnd(t, r, gitlab.Canceled, "", 0)
			})
		}
	}
}

func TestAJobOverItsTimeIsCleanedUpAtOnce(t *testing.T) {
	t.Parallel()
	for stage, want := range map[string]string{"prepare": "config prepare cleanup", "build_script": upTo + "restore_cache build_script cleanup"} {
		t.Run(stage, func(t *testing.T) {
			f := newFake(t, map[string][]act{stage: {{Hang: true, Exit: 2}}})
			job := full()
			job.Timeout = patience
			r := f.play(job)
			wantNames(t, r, want)
			wantEnd(t, r, gitlab.Failed, gitlab.Timeout, 0)
		})
	}
}

func TestAScriptOverItsOwnTimeIsFollowedByTheRest(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Hang: true, Exit: 0}}})
	job := full()
	job.Variables = []gitlab.Variable{{Key: "RUNNER_SCRIPT_TIMEOUT", Value: "200ms"}}
	r := f.play(job)
	wantNames(t, r, upTo+"restore_cache build_script after_script archive_cache_on_failure upload_artifacts_on_failure cleanup_file_variables cleanup")
	wantEnd(t, r, gitlab.Failed, gitlab.Timeout, 0)
}

func TestConfigAndPrepareOverTheirOwnTimeAreJudgedByTheirExit(t *testing.T) {
	t.Parallel()
	for stage, set := range map[string]func(*gitlab.Driver, time.Duration){
		"config":  func(d *gitlab.Driver, limit time.Duration) { d.Config.Timeout = limit },
		"prepare": func(d *gitlab.Driver, limit time.Duration) { d.Prepare.Timeout = limit },
	} {
		for exit, end := range map[int]struct {
			status gitlab.Status
			reason gitlab.Reason
		}{0: {gitlab.Success, ""}, 1: {gitlab.Failed, gitlab.ScriptFailure}, 2: {gitlab.Failed, gitlab.SystemFailure}} {
			t.Run(stage, func(t *testing.T) {
				f := newFake(t, map[string][]act{stage: {{Hang: true, Exit: exit}}})
				set(&f.Driver, patience)
				r := f.play(gitlab.Job{})
				if r.Status != end.status || r.Reason != end.reason {
					t.Errorf("exit %d: %s %s\n%s", exit, r.Status, r.Reason, r.Log)
				}
			})
		}
	}
}

func TestAStopDuringRunTerminatesTheDriverAndCleansUp(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Hang: true, Exit: 0}}})
	f.at("build_script", (*gitlab.Running).Stop)
	r := f.play(full())
	wantNames(t, r, upTo+"restore_cache build_script cleanup")
	wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
	wantLine(t, r.Log, "ERROR: Job failed (system failure): aborted: terminated")
}

func TestAStopDuringPrepareLetsItEnd(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"config", "prepare"} {
		t.Run(stage, func(t *testing.T) {
			f := newFake(t, nil)
			f.OnStart = func(job *gitlab.Running, p *gitlab.Process) {
				if p.Stage == stage {
					job.Stop()
				}
			}
			r := f.play(gitlab.Job{})
			wantNames(t, r, "config prepare cleanup")
			wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
			if r.Last(stage).Terminated {
				t.Error("the stage was terminated")
			}
		})
	}
}

func TestTheEndOfTheContextStopsTheRunner(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Hang: true}}})
	ctx, cancel := context.WithCancel(t.Context())
	f.at("build_script", func(*gitlab.Running) { cancel() })
	wantNames(t, f.playIn(ctx, gitlab.Job{}), upTo+"build_script cleanup")
}

// Everything that ends gitlab-runner itself: no cleanup is called, and what
// runs lives on until it writes to a pipe.
func TestADeadRunnerNeverCleansUp(t *testing.T) {
	t.Parallel()
	for name, die := range map[string]func(*gitlab.Running){
		"killed":             (*gitlab.Running).Kill,
		"stopped twice":      func(job *gitlab.Running) { job.Stop(); job.Stop() },
		"slow to shut down":  (*gitlab.Running).Stop,
		"killed as it waits": func(job *gitlab.Running) { job.Cancel(); job.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, map[string][]act{"get_sources": {{Hang: true, Deaf: true}}})
			f.ShutdownTimeout = 100 * time.Millisecond
			var left *gitlab.Process
			f.OnStart = func(_ *gitlab.Running, p *gitlab.Process) { left = p }
			f.at("get_sources", die)
			r := f.play(gitlab.Job{})
			wantNames(t, r, "config prepare prepare_script get_sources")
			wantEnd(t, r, gitlab.Abandoned, "", 0)
			defer left.SignalGroup(syscall.SIGKILL)
			if s := r.Last("get_sources"); !s.Left || s.Pid != left.Pid || left.Signal(0) != nil {
				t.Errorf("not left alive: %+v", s)
			}
			if _, err := os.Stat(left.Dir); err != nil {
				t.Errorf("its directory is gone: %v", err)
			}
		})
	}
}

func TestADriverThatWritesAfterItsRunnersDeathDies(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Child: `trap "" TERM; sleep 0.2; while echo still here; do sleep 0.01; done`, Hang: true}}})
	var left *gitlab.Process
	f.OnStart = func(_ *gitlab.Running, p *gitlab.Process) { left = p }
	f.at("build_script", (*gitlab.Running).Kill)
	f.play(gitlab.Job{})
	left.Signal(syscall.SIGTERM) // to the driver alone; its child finds the pipe closed
	select {
	case <-left.Done():
	case <-time.After(10 * time.Second):
		t.Error("still there")
	}
}

func TestASignalReachesTheWholeGroupButNoOtherSession(t *testing.T) {
	f := newFake(t, map[string][]act{
		"get_sources":  {{Child: `trap "echo child terminated; exit" TERM; echo child ready; while :; do sleep 0.02; done`, Hang: true}},
		"build_script": {{Child: `exec >/dev/null 2>&1; sleep 60`, Session: true, Hang: true}},
	})
	f.OnLine = func(job *gitlab.Running, line string) {
		if line == "child ready" || line == "build_script hangs" {
			job.Cancel()
		}
	}
	r := f.play(gitlab.Job{})
	wantLine(t, r.Log, "child terminated")

	f.plan["get_sources"] = nil
	r = f.play(gitlab.Job{})
	wantNames(t, r, small)
	child := sessionLeader(t)
	if child == 0 {
		t.Fatal("the child in a session of its own did not survive")
	}
	syscall.Kill(-child, syscall.SIGKILL)
}

// sessionLeader finds what this test's driver has left in a session of its own.
func sessionLeader(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	must(err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		session, _ := unix.Getsid(pid)
		environment, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if session == pid && bytes.Contains(environment, []byte("/"+t.Name())) {
			return pid
		}
	}
	return 0
}

func TestADeafDriverIsKilledAfterItsGrace(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Hang: true, Deaf: true}}})
	f.Driver.GracefulKillTimeout = 100 * time.Millisecond
	f.at("build_script", (*gitlab.Running).Abort)
	r := f.play(gitlab.Job{})
	s := r.Last("build_script")
	if !s.Terminated || !s.Killed || s.Left || s.Signal != syscall.SIGKILL || s.ExitStatus != -1 {
		t.Errorf("%+v", s)
	}
	wantNames(t, r, upTo+"build_script cleanup")
}

func TestAStageThatSurvivesSIGKILLIsGivenUp(t *testing.T) {
	f := newFake(t, map[string][]act{"get_sources": {{Child: "sleep 60", Session: true, Hang: true}}})
	f.Driver.GracefulKillTimeout, f.Driver.ForceKillTimeout = 100*time.Millisecond, 100*time.Millisecond
	f.at("get_sources", (*gitlab.Running).Cancel)
	r := f.play(gitlab.Job{})
	s := r.Last("get_sources")
	if !s.Killed || !s.Left || !strings.Contains(s.Error, "dormant") {
		t.Errorf("%+v", s)
	}
	if child := sessionLeader(t); child == 0 || syscall.Kill(-child, syscall.SIGKILL) != nil {
		t.Error("it held the pipes, but is not there")
	}
	wantEnd(t, r, gitlab.Canceled, "", 0)
}

func TestADriverKilledInAnyStageIsASystemFailureThatIsCleanedUp(t *testing.T) {
	t.Parallel()
	for _, stage := range everyStage {
		t.Run(stage, func(t *testing.T) {
			f := newFake(t, map[string][]act{stage: {{Hang: true}, {}}})
			f.at(stage, func(job *gitlab.Running) { job.Process().Signal(syscall.SIGKILL) })
			r := f.play(full())
			if got := r.Names(); got[len(got)-1] != "cleanup" {
				t.Errorf("no cleanup after %v", got)
			}
			var killed *gitlab.StageResult
			for i := range r.Stages {
				if r.Stages[i].Name() == stage && killed == nil {
					killed = &r.Stages[i]
				}
			}
			if killed.Signal != syscall.SIGKILL || killed.Killed {
				t.Errorf("%+v", killed)
			}
			switch stage {
			case "config", "prepare", "after_script", "cleanup_file_variables":
				wantEnd(t, r, gitlab.Success, "", 0)
			default:
				wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
			}
		})
	}
}

func TestCleanupGoesOnWhateverHappensToTheJob(t *testing.T) {
	f := newFake(t, map[string][]act{"cleanup": {{Stdout: "done\n"}}})
	var log bytes.Buffer
	f.RunnerLog = &log
	f.OnStart = func(job *gitlab.Running, p *gitlab.Process) {
		if p.Stage == "cleanup" {
			job.Cancel()
			job.Abort()
			job.Stop()
		}
	}
	r := f.play(gitlab.Job{})
	wantEnd(t, r, gitlab.Success, "", 0)
	wantLine(t, log.String(), "DEBUG: done cleanup_std=out")
	if r.Last("cleanup").Terminated {
		t.Error("cleanup was terminated")
	}
}

func TestCleanupOverItsTimeIsTerminated(t *testing.T) {
	f := newFake(t, map[string][]act{"cleanup": {{Hang: true, Exit: 2}}})
	f.Driver.Cleanup.Timeout = 300 * time.Millisecond
	r := f.play(gitlab.Job{})
	wantEnd(t, r, gitlab.Success, "", 0)
	if !r.Last("cleanup").Terminated {
		t.Error("cleanup was not terminated")
	}
}
