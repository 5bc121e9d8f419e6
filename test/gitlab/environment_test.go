package gitlab_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

func TestTheEnvironmentIsTheSameInEveryStage(t *testing.T) {
	f := newRecorder(t, nil)
	f.Env = []string{"OF_GITLAB_RUNNER=yes"}
	f.play(gitlab.Job{})
	calls := f.calls()
	for _, c := range calls {
		for key, want := range map[string]string{
			"OF_GITLAB_RUNNER": "yes", "BUILD_FAILURE_EXIT_CODE": "1", "SYSTEM_FAILURE_EXIT_CODE": "2",
			"BUILD_EXIT_CODE_FILE": c.Dir + "/build_exit_code", "JOB_RESPONSE_FILE": c.Dir + "/response.json",
			"CUSTOM_ENV_CI_JOB_ID": "1001", "CUSTOM_ENV_CI_PROJECT_PATH": "group/project",
		} {
			if c.Env[key] != want {
				t.Errorf("%s: %s=%q, want %q", c.Name, key, c.Env[key], want)
			}
		}
	}
	// Prepare, run and cleanup differ in nothing but the job's status.
	reference := calls[1].Env
	for _, c := range calls[2:] {
		for _, key := range slices.Sorted(maps.Keys(c.Env)) {
			if c.Env[key] != reference[key] && key != "CUSTOM_ENV_CI_JOB_STATUS" {
				t.Errorf("%s: %s=%q, in prepare %q", c.Name, key, c.Env[key], reference[key])
			}
		}
	}
}

func TestAnOldRunnerHasNoExitCodeFile(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Exit: 1}}})
	f.Version = 15
	r := f.play(gitlab.Job{})
	wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, 1)
	if file, set := f.lastCall("build_script").Env["BUILD_EXIT_CODE_FILE"]; set {
		t.Errorf("BUILD_EXIT_CODE_FILE=%s", file)
	}
}

func TestJobEnvReachesEveryStageButConfig(t *testing.T) {
	f := newRecorder(t, map[string][]act{"config": {{Stdout: `{"job_env": {"MACHINE": "m1", "SYSTEM_FAILURE_EXIT_CODE": "9"}}`}}})
	f.play(gitlab.Job{})
	for _, c := range f.calls() {
		want := "m1"
		if c.Name == "config" {
			want = ""
		}
		if c.Env["MACHINE"] != want {
			t.Errorf("%s: MACHINE=%q", c.Name, c.Env["MACHINE"])
		}
	}
	if got := f.lastCall("cleanup").Env["SYSTEM_FAILURE_EXIT_CODE"]; got != "9" {
		t.Errorf("job_env does not come last: %s", got)
	}
}

func TestVariablesAreExpandedOnceAndKeepTheirShape(t *testing.T) {
	f := newRecorder(t, nil)
	f.play(gitlab.Job{
		Timeout:             90 * time.Second,
		ConcurrentID:        4,
		ConcurrentProjectID: 2,
		Variables: []gitlab.Variable{
			{Key: "SUITE", Value: "trixie"},
			{Key: "TARGET", Value: "debian-$SUITE-${CI_JOB_ID}$$"},
			{Key: "LINES", Value: "one\ntwo\n"},
			{Key: "SECRET", Value: "in clear", Masked: true},
			{Key: "CONFIG", Value: "content", File: true},
			{Key: "OF_CONFIG", Value: "$CONFIG"},
			{Key: "RAW", Value: "$SUITE", Raw: true},
		},
	})
	env := f.lastCall("build_script").Env
	project := f.Driver.BuildsDir + "/group/project"
	for key, want := range map[string]string{
		"TARGET": "debian-trixie-1001$", "LINES": "one\ntwo\n", "SECRET": "in clear", "CONFIG": "content",
		"OF_CONFIG": project + ".tmp/CONFIG", "RAW": "$SUITE",
		"CI_BUILDS_DIR": f.Driver.BuildsDir, "CI_PROJECT_DIR": project,
		"CI_JOB_TIMEOUT": "90", "CI_CONCURRENT_ID": "4", "CI_CONCURRENT_PROJECT_ID": "2",
		"CI_JOB_TOKEN": "glcbt-simulated-1001", "CI_COMMIT_REF_PROTECTED": "false", "CI_JOB_SERVICES": "",
	} {
		if got := env["CUSTOM_ENV_"+key]; got != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	if image, set := env["CUSTOM_ENV_CI_JOB_IMAGE"]; set {
		t.Errorf("a job without an image has CI_JOB_IMAGE=%q", image)
	}
	config := f.lastCall("config").Env
	if config["CUSTOM_ENV_CI_BUILDS_DIR"]+config["CUSTOM_ENV_CI_PROJECT_DIR"] != "" {
		t.Error("config knows the directories that it is asked for")
	}
}

func TestServicesAreAJSONListAndInTheResponse(t *testing.T) {
	job := gitlab.Job{
		Variables: []gitlab.Variable{{Key: "V", Value: "16"}, {Key: "ALIASES", Value: "db, postgres.example"}, {Key: "SECRET", Value: "p'$$w"}},
		Services: []gitlab.Image{
			{
				Name: "registry.example:5000/postgres:$V", Alias: "$ALIASES", Command: []string{"-c", "$V"}, PullPolicy: []string{"always"},
				Variables: []gitlab.Variable{{Key: "PASSWORD", Value: "$SECRET"}, {Key: "URL", Value: "x:$PASSWORD:$NOTHING"}, {Key: "RAW", Value: "$V", Raw: true}},
			},
			{Name: "redis"},
		},
		Credentials: []gitlab.Credential{{URL: "registry.example:5000", Username: "u", Password: "p"}},
	}
	job.Services[1].Executor.Docker.User = "nobody"
	for version, variables := range map[int]string{17: "", 19: `,"variables":{"PASSWORD":"p'$w","RAW":"$V","URL":"x:$SECRET:"}`} {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			f := newFake(t, map[string][]act{"prepare": nil})
			f.Version = version
			f.play(job)
			prepare := f.lastCall("prepare")
			want := `[{"name":"registry.example:5000/postgres:16","alias":"db","entrypoint":null,"command":["-c","$V"]` + variables + `},` +
				`{"name":"redis","alias":"","entrypoint":null,"command":null}]`
			if got := prepare.Env["CUSTOM_ENV_CI_JOB_SERVICES"]; got != want {
				t.Errorf("%s, want\n%s", got, want)
			}
			for _, want := range []string{
				`{"name":"registry.example:5000/postgres:16","alias":"db, postgres.example","command":["-c","$V"],"variables":[{"key":"PASSWORD","value":"$SECRET",`,
				`"pull_policy":["always"],"executor_opts":{"docker":{},"kubernetes":{}}},{"name":"redis","executor_opts":{"docker":{"user":"nobody"},"kubernetes":{}}}]`,
				`"credentials":[{"type":"registry","url":"registry.example:5000","username":"u","password":"p"}]`,
			} {
				if !strings.Contains(prepare.Response, want) {
					t.Errorf("no %s in %s", want, prepare.Response)
				}
			}
		})
	}
}

func TestAJobCannotForgeItsListOfServices(t *testing.T) {
	for want, job := range map[string]gitlab.Job{
		"": {},
		`[{"name":"redis","alias":"","entrypoint":null,"command":null}]`: {Services: []gitlab.Image{{Name: "redis"}}},
	} {
		t.Run("", func(t *testing.T) {
			f := newFake(t, map[string][]act{"prepare": nil})
			job.Variables = []gitlab.Variable{{Key: "CI_JOB_SERVICES", Value: "forged"}}
			f.play(job)
			if got := f.lastCall("prepare").Env["CUSTOM_ENV_CI_JOB_SERVICES"]; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

func TestTheStatusOfTheJobIsKnownBehindItsScript(t *testing.T) {
	t.Parallel()
	job := gitlab.Job{AfterScript: []string{"true"}}
	for status, c := range map[string]struct {
		script act
		do     func(*gitlab.Running)
		limit  string // RUNNER_SCRIPT_TIMEOUT
	}{
		"success":  {act{}, nil, ""},
		"failed":   {act{Exit: 1}, nil, ""},
		"canceled": {act{Hang: true}, (*gitlab.Running).Cancel, ""},
		"timedout": {act{Hang: true}, func(*gitlab.Running) {}, "200ms"}, // as gitlab-runner 19.4 says to these stages
	} {
		t.Run(status, func(t *testing.T) {
			job := job
			job.Variables = []gitlab.Variable{{Key: "RUNNER_SCRIPT_TIMEOUT", Value: c.limit}}
			f := newFake(t, map[string][]act{"prepare": nil, "build_script": {c.script}, "after_script": nil, "cleanup_file_variables": nil, "cleanup": nil})
			f.at("build_script", c.do)
			f.play(job)
			for _, call := range f.calls() {
				want := "running"
				if slices.Contains([]string{"after_script", "cleanup_file_variables", "cleanup"}, call.Name) {
					want = status
				}
				if got := call.Env["CUSTOM_ENV_CI_JOB_STATUS"]; got != want {
					t.Errorf("%s: %s, want %s", call.Name, got, want)
				}
			}
		})
	}
}

func TestTheJobControlsEveryCustomVariableButNotTheResponse(t *testing.T) {
	escape := "x/../../../../../var/tmp/victim"
	hostile := map[string]string{
		"CI_JOB_ID": escape, "CI_JOB_IMAGE": "--privileged", "CI_JOB_TIMEOUT": "999999999",
		"CI_COMMIT_REF_PROTECTED": "true", "CI_SERVER_URL": "https://evil.example",
	}
	job := gitlab.Job{Image: gitlab.Image{Name: "bookworm"}}
	for _, key := range slices.Sorted(maps.Keys(hostile)) {
		job.Variables = append(job.Variables, gitlab.Variable{Key: key, Value: hostile[key]})
	}
	f := newRecorder(t, nil)
	wantEnd(t, f.play(job), gitlab.Success, "", 0)
	for _, c := range f.calls() {
		for key, want := range hostile {
			if got := c.Env["CUSTOM_ENV_"+key]; got != want {
				t.Errorf("%s: %s=%q, want the job's %q", c.Name, key, got, want)
			}
		}
		var response struct {
			ID        int64
			Image     gitlab.Image
			Variables []gitlab.Variable
			GitInfo   struct{ Protected *bool } `json:"git_info"`
		}
		if err := json.Unmarshal([]byte(c.Response), &response); err != nil {
			t.Fatal(err)
		}
		if response.ID != 1001 || response.Image.Name != "bookworm" || response.GitInfo.Protected != nil {
			t.Errorf("%s: response %s", c.Name, c.Response)
		}
		var ids []string
		for _, v := range response.Variables {
			if v.Key == "CI_JOB_ID" {
				ids = append(ids, v.Value)
			}
		}
		if !slices.Equal(ids, []string{"1001", escape}) {
			t.Errorf("%s: CI_JOB_ID in the response: %q", c.Name, ids)
		}
	}
}

func TestAVariableTheSystemCannotPassOnStartsNoStageAtAll(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"too long": strings.Repeat("x", 131_072), "NUL": "a\x00b"} {
		t.Run(name, func(t *testing.T) {
			f := newRecorder(t, nil)
			r := f.play(gitlab.Job{Variables: []gitlab.Variable{{Key: "V", Value: value}}})
			wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
			wantNames(t, r, "config cleanup config cleanup config cleanup")
			if len(f.calls()) > 0 || r.Stages[1].Pid != 0 || r.Stages[1].Error == "" {
				t.Errorf("a stage was started: %+v", r.Stages)
			}
		})
	}
}
