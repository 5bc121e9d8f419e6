package gitlab_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// at reads a value deep in a JSON object; what is missing is nil.
func at(t *testing.T, text string, path ...string) any {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	for _, key := range path {
		object, _ := value.(map[string]any)
		value = object[key]
	}
	return value
}

func TestTheResponseIsGitLabsWordOnTheJob(t *testing.T) {
	yes := true
	f := newRecorder(t, nil)
	f.play(gitlab.Job{
		ID: 77, Token: "secret", Timeout: time.Minute, UserID: 5, PipelineID: 6,
		Project:     gitlab.Project{ID: 8, Path: "a/b/c", NamespaceID: 9},
		Git:         gitlab.Git{SHA: "0123456789", Protected: &yes, Depth: 20},
		Image:       gitlab.Image{Name: "$SUITE:ci", Entrypoint: []string{"/e"}},
		Variables:   []gitlab.Variable{{Key: "SUITE", Value: "sid"}, {Key: "REF", Value: "$SUITE"}},
		Cache:       []gitlab.Cache{{Key: "k", Paths: []string{"p"}, FallbackKeys: []string{"f"}}},
		AfterScript: []string{"bye"},
	})
	text := f.lastCall("cleanup").Response
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("not one line: %q", text)
	}
	for _, c := range []struct {
		path string
		want any
	}{
		{"id", 77.0}, {"token", "secret"},
		{"job_info name", "job"}, {"job_info stage", "test"}, {"job_info pipeline_id", 6.0}, {"job_info project_id", 8.0},
		{"job_info project_name", "c"}, {"job_info project_full_path", "a/b/c"}, {"job_info namespace_id", 9.0}, {"job_info user_id", 5.0},
		{"git_info repo_url", "https://gitlab-ci-token:secret@gitlab.example/a/b/c.git"}, {"git_info ref", "main"},
		{"git_info sha", "0123456789"}, {"git_info ref_type", "branch"}, {"git_info depth", 20.0}, {"git_info protected", true},
		{"runner_info timeout", 60.0}, {"image name", "sid:ci"}, {"services", nil},
	} {
		if got := at(t, text, strings.Fields(c.path)...); got != c.want {
			t.Errorf("%s: %v, want %v", c.path, got, c.want)
		}
	}
	for _, want := range []string{`{"key":"REF","value":"$SUITE",`, `"uuid":`, `"name":"after_script","script":["bye"]`, `"fallback_keys":["f"]`, `"features":{`, `"artifacts":null`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for _, c := range f.calls() {
		if c.Response != text {
			t.Errorf("%s has another response", c.Name)
		}
	}
}

func TestOlderRunnersLackFieldsOfTheResponse(t *testing.T) {
	t.Parallel()
	lacking := map[int][]string{
		15: {"pipeline_id", "project_full_path", "namespace_id", "user_id", "protected", "uuid"},
		17: {"pipeline_id", "namespace_id", "user_id", "protected"},
		19: nil,
	}
	for version, fields := range lacking {
		t.Run("", func(t *testing.T) {
			f := newFake(t, map[string][]act{"prepare": nil})
			f.Version = version
			f.play(gitlab.Job{})
			text := f.lastCall("prepare").Response
			for _, field := range lacking[15] {
				lacks := !strings.Contains(text, `"`+field+`":`)
				want := strings.Contains(" "+strings.Join(fields, " ")+" ", " "+field+" ")
				if lacks != want {
					t.Errorf("version %d: lacks %s: %v", version, field, lacks)
				}
			}
			if at(t, text, "image", "name") != "" {
				t.Errorf("a job without an image: %s", text)
			}
		})
	}
}

func TestATestCanSpoilTheResponse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func([]byte) []byte
		want  string
	}{
		"truncated": {func(b []byte) []byte { return b[:5] }, `{"id"`},
		"hostile":   {func([]byte) []byte { return []byte(`{"id":"../x"}`) }, `{"id":"../x"}`},
		"missing":   {func([]byte) []byte { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, map[string][]act{"prepare": nil})
			f.Response = c.spoil
			f.play(gitlab.Job{})
			call := f.lastCall("prepare")
			if call.Response != c.want || call.Env["JOB_RESPONSE_FILE"] == "" {
				t.Errorf("response %q in %q", call.Response, call.Env["JOB_RESPONSE_FILE"])
			}
			if _, there := call.Modes["response"]; there != (name != "missing") {
				t.Errorf("the file is there: %v", there)
			}
		})
	}
}

func TestATestCanSpoilTheResponseInTheMiddleOfTheJob(t *testing.T) {
	f := newRecorder(t, nil)
	f.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
		if p.SubStage == "cleanup_file_variables" {
			must(os.Remove(p.Dir + "/response.json"))
		}
	}
	f.play(gitlab.Job{})
	if f.lastCall("build_script").Response == "" || f.lastCall("cleanup").Response != "" {
		t.Error("the response file was not removed in between")
	}
}
