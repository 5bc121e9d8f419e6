package gitlab_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// full is a job with everything that can follow its script.
func full() gitlab.Job {
	return gitlab.Job{
		AfterScript: []string{"true"},
		Cache:       []gitlab.Cache{{Paths: []string{"c"}, When: gitlab.Always}},
		Artifacts:   []gitlab.Artifact{{Paths: []string{"a"}, When: gitlab.Always}},
	}
}

func TestABuildFailureInConfigOrPrepareIsNotRetried(t *testing.T) {
	t.Parallel()
	for stage, want := range map[string]string{"config": "config cleanup", "prepare": "config prepare cleanup"} {
		t.Run(stage, func(t *testing.T) {
			r := newFake(t, map[string][]act{stage: {{Exit: 1, Code: "3"}}}).play(gitlab.Job{})
			wantNames(t, r, want)
			wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 3)
		})
	}
}

func TestASystemFailureInConfigOrPrepareIsTriedThreeTimes(t *testing.T) {
	t.Parallel()
	once := map[string]string{"config": "config cleanup", "prepare": "config prepare cleanup"}
	for name, a := range map[string]act{"exit 2": {Exit: 2}, "exit 3": {Exit: 3}, "killed": {Signal: syscall.SIGKILL}} {
		for stage, want := range once {
			t.Run(stage+" "+name, func(t *testing.T) {
				r := newFake(t, map[string][]act{stage: {a}}).play(gitlab.Job{})
				wantNames(t, r, want+" "+want+" "+want)
				wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
				if ugly := strings.Contains(r.Message, "unknown Custom executor executable exit code"); ugly != (name != "exit 2") {
					t.Errorf("message: %s", r.Message)
				}
			})
		}
	}
}

func TestAnExecThatIsNotThereIsASystemFailure(t *testing.T) {
	f := newFake(t, nil)
	f.Driver.Run.Exec = "/does/not/exist"
	r := f.play(gitlab.Job{})
	wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
	wantNames(t, r, "config prepare prepare_script cleanup")
}

func TestTriesOfPrepareAreAPauseApart(t *testing.T) {
	f := newFake(t, map[string][]act{"prepare": {{Exit: 2}}})
	f.RetryPause = 50 * time.Millisecond
	start := time.Now()
	r := f.play(gitlab.Job{})
	if took := time.Since(start); took < 3*f.RetryPause {
		t.Errorf("three tries took %v", took)
	}
	wantLine(t, r.Log, "Will be retried in 50ms ...")
}

func TestWhatFollowsTheFailureOfASubStage(t *testing.T) {
	t.Parallel()
	const (
		start   = "config prepare prepare_script get_sources restore_cache build_script after_script "
		saved   = "archive_cache upload_artifacts_on_success "
		rescued = "archive_cache_on_failure upload_artifacts_on_failure "
		end     = "cleanup_file_variables cleanup"
	)
	for _, c := range []struct{ stage, stages string }{
		{"prepare_script", "config prepare prepare_script cleanup"},
		{"get_sources", "config prepare prepare_script get_sources " + end},
		{"restore_cache", "config prepare prepare_script get_sources restore_cache " + end},
		{"build_script", start + rescued + end},
		{"archive_cache", start + saved + end},
		{"upload_artifacts_on_success", start + saved + end},
	} {
		for _, kind := range []struct {
			exit   int
			reason gitlab.Reason
			code   int
		}{{1, gitlab.ScriptFailure, 1}, {2, gitlab.SystemFailure, 0}, {77, gitlab.SystemFailure, 0}} {
			t.Run(c.stage+" "+string(kind.reason), func(t *testing.T) {
				r := newFake(t, map[string][]act{c.stage: {{Exit: kind.exit}}}).play(full())
				wantNames(t, r, c.stages)
				wantEnd(t, r, gitlab.Failed, kind.reason, kind.code)
			})
		}
	}
}

func TestSomeFailuresLeaveTheResultAsItIs(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"after_script", "cleanup_file_variables", "cleanup"} {
		for _, exit := range []int{1, 2} {
			t.Run(stage, func(t *testing.T) {
				r := newFake(t, map[string][]act{stage: {{Exit: exit}}}).play(gitlab.Job{AfterScript: []string{"true"}})
				wantEnd(t, r, gitlab.Success, "", 0)
				if warned := strings.Contains(r.Log, "WARNING: after_script failed, but job will continue unaffected"); warned != (stage == "after_script") {
					t.Errorf("warned: %v", warned)
				}
			})
		}
	}
}

func TestTheScriptsFailureOutranksThatOfItsArchives(t *testing.T) {
	r := newFake(t, map[string][]act{"build_script": {{Exit: 1, Code: "7"}}, "archive_cache_on_failure": {{Exit: 2}}, "upload_artifacts_on_failure": {{Exit: 2}}}).play(full())
	wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 7)
}

func TestAFailedStepIsAFailedScript(t *testing.T) {
	r := newFake(t, map[string][]act{"step_release": {{Exit: 1}}}).play(gitlab.Job{Steps: []gitlab.Step{{Name: "Release"}, {Name: "more"}}})
	wantNames(t, r, "config prepare prepare_script get_sources build_script step_release cleanup_file_variables cleanup")
	wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 1)
}

func TestSourcesAreTriedAsOftenAsTheJobWants(t *testing.T) {
	t.Parallel()
	variables := []gitlab.Variable{{Key: "GET_SOURCES_ATTEMPTS", Value: "3"}, {Key: "RESTORE_CACHE_ATTEMPTS", Value: "2"}, {Key: "ARTIFACT_DOWNLOAD_ATTEMPTS", Value: "2"}}
	job := gitlab.Job{
		Variables:    variables,
		Cache:        []gitlab.Cache{{Paths: []string{"c"}, When: gitlab.OnFailure}},
		Dependencies: []gitlab.Dependency{{ID: 1, File: "artifacts.zip"}},
	}
	t.Run("until it works", func(t *testing.T) {
		f := newFake(t, map[string][]act{"get_sources": {{Exit: 1}, {Exit: 2}, {}}, "restore_cache": {{Exit: 2}, {}}, "download_artifacts": {{Exit: 1}, {}}})
		f.AttemptPause = 20 * time.Millisecond
		r := f.play(job)
		wantNames(t, r, "config prepare prepare_script get_sources clear_worktree get_sources get_sources restore_cache restore_cache"+
			" download_artifacts download_artifacts build_script cleanup_file_variables cleanup")
		wantEnd(t, r, gitlab.Success, "", 0)
		wantLine(t, r.Log, "Retrying in 20ms")
		wantLine(t, r.Log, "Retrying in 40ms")
		if try := r.Last("get_sources").Try; try != 3 {
			t.Errorf("attempt %d worked", try)
		}
	})
	t.Run("until it is enough", func(t *testing.T) {
		r := newFake(t, map[string][]act{"download_artifacts": {{Exit: 1, Code: "9"}}}).play(job)
		wantNames(t, r, "config prepare prepare_script get_sources restore_cache download_artifacts download_artifacts cleanup_file_variables cleanup")
		wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 9)
	})
}

func TestTheExitCodeFileHoldsOneDecimalInteger(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		content string
		reason  gitlab.Reason
		code    int
	}{
		"plain":              {"42", gitlab.ScriptFailure, 42},
		"with a newline":     {"42\n", gitlab.ScriptFailure, 42},
		"first of two lines": {"42\nmore", gitlab.ScriptFailure, 42},
		"above a byte":       {"256", gitlab.ScriptFailure, 256},
		"zero is no code":    {"0", gitlab.ScriptFailure, 0},
		"empty line":         {"\n", gitlab.SystemFailure, 0},
		"blanks":             {" 42", gitlab.SystemFailure, 0},
		"hexadecimal":        {"0x2a", gitlab.SystemFailure, 0},
		"words":              {"42 x", gitlab.SystemFailure, 0},
		"directory":          {"directory", gitlab.SystemFailure, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFake(t, map[string][]act{"prepare_script": {{Exit: 1, Code: c.content}}}).play(gitlab.Job{})
			wantEnd(t, r, gitlab.Failed, c.reason, c.code)
		})
	}
}

func TestTheExitCodeFileIsReadOnlyForExitOne(t *testing.T) {
	r := newFake(t, map[string][]act{"build_script": {{Exit: 2, Code: "42"}}}).play(gitlab.Job{})
	wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
}

func TestAStageThatWritesNoCodeInheritsAnOlderOne(t *testing.T) {
	r := newFake(t, map[string][]act{"get_sources": {{Code: "42"}}, "build_script": {{Exit: 1}}}).play(gitlab.Job{})
	wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 42)
	t.Run("but not of another try", func(t *testing.T) {
		r := newFake(t, map[string][]act{"prepare": {{Exit: 2, Code: "42"}, {Exit: 1}}}).play(gitlab.Job{})
		wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 1)
	})
}
