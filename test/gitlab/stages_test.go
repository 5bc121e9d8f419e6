package gitlab_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/test/gitlab"
)

const (
	small  = "config prepare prepare_script get_sources build_script cleanup_file_variables cleanup"
	failed = "config prepare prepare_script get_sources build_script after_script archive_cache_on_failure upload_artifacts_on_failure cleanup_file_variables cleanup"
)

func TestASmallJobIsSevenProcesses(t *testing.T) {
	f := newRecorder(t, nil)
	r := f.play(gitlab.Job{})
	wantNames(t, r, small)
	wantEnd(t, r, gitlab.Success, "", 0)
	wantLine(t, r.Log, "Job succeeded")

	for i, want := range []string{"gitlab-config", "prepare --verbose", "run SCRIPT prepare_script", "run SCRIPT get_sources",
		"run SCRIPT build_script", "run SCRIPT cleanup_file_variables", "cleanup"} {
		args := slices.Clone(f.calls()[i].Args[1:])
		if len(args) == 3 {
			args[1] = "SCRIPT"
		}
		if got := strings.Join(args, " "); got != want {
			t.Errorf("call %d: %s, want %s", i, got, want)
		}
	}
}

func TestAJobThatHasEverythingGoesThroughEverySubStage(t *testing.T) {
	f := newFake(t, nil)
	r := f.play(gitlab.Job{
		AfterScript:  []string{"true"},
		Cache:        []gitlab.Cache{{Paths: []string{"c"}}},
		Artifacts:    []gitlab.Artifact{{Paths: []string{"a"}}},
		Dependencies: []gitlab.Dependency{{ID: 1, Name: "earlier", File: "artifacts.zip"}},
		Steps:        []gitlab.Step{{Name: "release", Script: []string{"true"}}},
	})
	wantNames(t, r, "config prepare prepare_script get_sources restore_cache download_artifacts build_script step_release"+
		" after_script archive_cache upload_artifacts_on_success cleanup_file_variables cleanup")
	wantEnd(t, r, gitlab.Success, "", 0)
}

func TestOnlyWhatFitsTheOutcomeIsArchived(t *testing.T) {
	t.Parallel()
	on := func(when gitlab.When) gitlab.Job {
		return gitlab.Job{
			Cache:     []gitlab.Cache{{Paths: []string{"c"}, When: when}},
			Artifacts: []gitlab.Artifact{{Paths: []string{"a"}, When: when}},
		}
	}
	for _, c := range []struct {
		when gitlab.When
		exit int
		want string
	}{
		{"", 0, "archive_cache upload_artifacts_on_success"},
		{gitlab.OnSuccess, 1, ""},
		{gitlab.OnFailure, 0, ""},
		{gitlab.OnFailure, 1, "archive_cache_on_failure upload_artifacts_on_failure"},
		{gitlab.Always, 0, "archive_cache upload_artifacts_on_success"},
		{gitlab.Always, 1, "archive_cache_on_failure upload_artifacts_on_failure"},
	} {
		t.Run(string(c.when)+" "+c.want, func(t *testing.T) {
			r := newFake(t, map[string][]act{"build_script": {{Exit: c.exit}}}).play(on(c.when))
			wantNames(t, r, strings.Join(strings.Fields("config prepare prepare_script get_sources restore_cache build_script "+c.want+" cleanup_file_variables cleanup"), " "))
		})
	}
}

func TestAStageIsAProcessGroupWithTwoPipesInAFreshDirectory(t *testing.T) {
	f := newRecorder(t, nil)
	f.play(gitlab.Job{})
	calls := f.calls()
	for _, c := range calls {
		if c.Dir != c.Env["TMPDIR"] || c.Dir != calls[0].Dir {
			t.Errorf("%s: directory %s, TMPDIR %s, config's %s", c.Name, c.Dir, c.Env["TMPDIR"], calls[0].Dir)
		}
		if c.Pgid != c.Pid || c.Ppid != os.Getpid() {
			t.Errorf("%s: pid %d, group %d, parent %d", c.Name, c.Pid, c.Pgid, c.Ppid)
		}
		if mine, _ := unix.Getsid(0); c.Sid != mine {
			t.Errorf("%s: session %d, not gitlab-runner's", c.Name, c.Sid)
		}
		if c.Fds[0] != "/dev/null" || !strings.HasPrefix(c.Fds[1], "pipe:") || !strings.HasPrefix(c.Fds[2], "pipe:") || c.Fds[1] == c.Fds[2] {
			t.Errorf("%s: descriptors %v", c.Name, c.Fds)
		}
		if filepath.Dir(c.Env["JOB_RESPONSE_FILE"]) != c.Dir || c.Modes["response"] != "-rw-------" {
			t.Errorf("%s: response file %s %s", c.Name, c.Env["JOB_RESPONSE_FILE"], c.Modes["response"])
		}
	}
	run := f.lastCall("build_script")
	script := run.Args[2]
	if ok, _ := filepath.Match(run.Dir+"/script[0-9]*/script", script); !ok || run.Modes["script"] != "-rwx------" {
		t.Errorf("script %s %s", script, run.Modes["script"])
	}
	if script == f.lastCall("get_sources").Args[2] {
		t.Error("two sub-stages shared a script")
	}
	if _, err := os.Stat(run.Dir); err == nil {
		t.Error("the directory outlived cleanup")
	}
}

func TestEveryTryOfPrepareHasItsOwnDirectory(t *testing.T) {
	f := newRecorder(t, map[string][]act{"prepare": {{Exit: 2}, {}}})
	r := f.play(gitlab.Job{})
	wantNames(t, r, "config prepare cleanup "+small)
	wantEnd(t, r, gitlab.Success, "", 0)
	calls := f.calls()
	if calls[0].Dir != calls[2].Dir || calls[0].Dir == calls[3].Dir {
		t.Errorf("directories %s, %s, then %s", calls[0].Dir, calls[2].Dir, calls[3].Dir)
	}
	if left, _ := os.ReadDir(f.Dir); len(left) > 0 {
		t.Errorf("left in the temporary directory: %v", left)
	}
	if try := r.Last("prepare").Try; try != 2 {
		t.Errorf("try %d of prepare succeeded", try)
	}
}

func TestAChildThatHoldsAPipeKeepsRunOpen(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Child: "sleep 0.3; echo from the child"}}})
	r := f.play(gitlab.Job{})
	wantLine(t, r.Log, "from the child")
	if s := r.Last("build_script"); s.Elapsed < 300*time.Millisecond || s.ExitStatus != 0 {
		t.Errorf("build_script ended after %v with %d", s.Elapsed, s.ExitStatus)
	}
}

func TestAChildThatHoldsAPipeKeepsPrepareOpenUntilItsTimeout(t *testing.T) {
	f := newFake(t, map[string][]act{"prepare": {{Child: "sleep 60"}}})
	f.Driver.Prepare.Timeout = patience
	r := f.play(gitlab.Job{})
	wantEnd(t, r, gitlab.Success, "", 0) // its exit status counts, and that was 0
	if s := r.Last("prepare"); !s.Terminated {
		t.Errorf("prepare: %+v", s)
	}
}

func TestAStageWithoutAnExecIsSkipped(t *testing.T) {
	f := newFake(t, nil)
	f.Driver.Config.Exec, f.Driver.Prepare.Exec, f.Driver.Cleanup.Exec = "", "", ""
	wantNames(t, f.play(gitlab.Job{}), "prepare_script get_sources build_script cleanup_file_variables")
}

func TestARunnerWithoutADriverDoesNotStart(t *testing.T) {
	if _, err := (gitlab.Runner{}).Start(gitlab.Job{}); err == nil || !strings.Contains(err.Error(), "run_exec") {
		t.Error(err)
	}
	unknown := gitlab.Runner{Version: 3, Driver: gitlab.Driver{Run: gitlab.Command{Exec: "true"}}}
	if _, err := unknown.Start(gitlab.Job{}); err == nil || !strings.Contains(err.Error(), "version 3") {
		t.Error(err)
	}
}
