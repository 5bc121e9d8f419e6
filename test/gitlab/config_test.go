package gitlab_test

import (
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

func TestConfigMayPrintNothingOrOneObject(t *testing.T) {
	t.Parallel()
	const thrice = "config cleanup config cleanup config cleanup"
	for stdout, good := range map[string]bool{
		"":                             true,
		"{}":                           true,
		" {\"unknown\": [1]}\n":        true,
		" ":                            false,
		"{} trailing":                  false,
		"{}{}":                         false,
		"[]":                           false,
		"null":                         false,
		`"text"`:                       false,
		`{"builds_dir": 7}`:            false,
		`{"job_env": {"A": 1}}`:        false,
		`{"builds_dir_is_shared": ""}`: false,
		`{"driver": "name"}`:           false,
		`{"hostname": "x"`:             false,
	} {
		t.Run(stdout, func(t *testing.T) {
			r := newFake(t, map[string][]act{"config": {{Stdout: stdout}}}).play(gitlab.Job{})
			if good {
				wantEnd(t, r, gitlab.Success, "", 0)
			} else {
				wantNames(t, r, thrice)
				wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
			}
		})
	}
}

func TestTheLogNamesTheDriver(t *testing.T) {
	t.Parallel()
	for stdout, want := range map[string]string{
		"":                                      "Using Custom executor...",
		`{"driver": {"name": "nspawn-runner"}}`: "Using Custom executor with driver nspawn-runner...",
		`{"driver": {"name": "nspawn-runner", "version": "1.0"}}`: "Using Custom executor with driver nspawn-runner 1.0...",
		`{"driver": {"version": "1.0"}}`:                          "Using Custom executor...",
	} {
		t.Run(want, func(t *testing.T) {
			wantLine(t, newFake(t, map[string][]act{"config": {{Stdout: stdout}}}).play(gitlab.Job{}).Log, want)
		})
	}
}

func TestConfigDecidesAboutThePlaceInTheMachine(t *testing.T) {
	f := inBash(t)
	builds, cache := filepath.Join(f.dir, "b"), filepath.Join(f.dir, "c")
	f.plan = map[string][]act{
		"config":       {{Stdout: `{"builds_dir": "` + builds + `", "cache_dir": "` + cache + `", "hostname": "host1", "shell": "sh"}`}},
		"build_script": {{Script: true}},
	}
	r := f.play(gitlab.Job{Script: []string{"pwd"}})
	wantLine(t, r.Log, builds+"/group/project")
	if script := f.lastCall("build_script").Script; !strings.HasPrefix(script, "#!/usr/bin/env sh\n") {
		t.Errorf("script: %.40s", script)
	}
	if !strings.Contains(r.Log, " via host1...") {
		t.Errorf("no host name in\n%s", r.Log)
	}
}

func TestSharedBuildsHaveALongerPath(t *testing.T) {
	f := newRecorder(t, map[string][]act{"config": {{Stdout: `{"builds_dir": "/b", "builds_dir_is_shared": true}`}}})
	f.play(gitlab.Job{ConcurrentProjectID: 3})
	if got := f.lastCall("prepare").Env["CUSTOM_ENV_CI_PROJECT_DIR"]; got != "/b/simulator/3/group/project" {
		t.Errorf("project directory %s", got)
	}
}

func TestWithoutItsDirectoriesAJobIsAConfigurationError(t *testing.T) {
	t.Parallel()
	for _, missing := range []string{"builds_dir", "cache_dir"} {
		t.Run(missing, func(t *testing.T) {
			f := newFake(t, map[string][]act{"config": {{Stdout: `{"` + missing + `": ""}`}}})
			r := f.play(gitlab.Job{})
			wantNames(t, r, "config cleanup")
			wantEnd(t, r, gitlab.Failed, gitlab.ConfigurationError, 0)
			wantLine(t, r.Log, "ERROR: Job failed: the "+missing+" is not configured")
		})
	}
	t.Run("in config.toml either", func(t *testing.T) {
		f := newFake(t, nil)
		f.Driver.BuildsDir = ""
		wantEnd(t, f.play(gitlab.Job{}), gitlab.Failed, gitlab.ConfigurationError, 0)
	})
}

func TestAnotherLanguageThanShellIsNotSimulated(t *testing.T) {
	r := newFake(t, map[string][]act{"config": {{Stdout: `{"shell": "pwsh"}`}}}).play(gitlab.Job{})
	wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
}
