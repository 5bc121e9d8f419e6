package gitlab_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

func TestAJobFileIsLikeAJobOfGitLabs(t *testing.T) {
	yes := true
	got, err := gitlab.ParseJob([]byte(`
id: 42
name: make
project: group/hello
repository: file:///srv/hello.git
ref: trunk
protected: true
timeout: 90s
image: {name: "bookworm", entrypoint: [/init]}
services:
  - postgres
  - {name: redis, alias: "cache,kv", entrypoint: [/e, -x], command: [c], variables: {A: b}, pull_policy: always, docker: {user: "1000", platform: linux/arm64}, kubernetes: {user: "1"}}
variables:
  ONE: 1
  TWO: {value: "$ONE", raw: true, masked: true}
  FILE: {value: x, file: true}
before_script: make deps
script:
  - make
  - [make check, [make install]]
after_script: [make clean]
artifacts: {paths: [out], when: always, expire_in: 1 day}
cache: {key: k, paths: [vendor], policy: pull}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := gitlab.Job{
		ID: 42, Name: "make", Timeout: 90 * time.Second,
		Project: gitlab.Project{Path: "group/hello"},
		Git:     gitlab.Git{URL: "file:///srv/hello.git", Ref: "trunk", Protected: &yes},
		Image:   gitlab.Image{Name: "bookworm", Entrypoint: []string{"/init"}},
		Services: []gitlab.Image{{Name: "postgres"}, {
			Name: "redis", Alias: "cache,kv", Entrypoint: []string{"/e", "-x"}, Command: []string{"c"},
			Variables: []gitlab.Variable{{Key: "A", Value: "b", Public: true}}, PullPolicy: []string{"always"},
			Executor: gitlab.ImageExecutor{
				Docker:     gitlab.DockerOptions{User: "1000", Platform: "linux/arm64"},
				Kubernetes: gitlab.KubernetesOptions{User: "1"},
			},
		}},
		Variables: []gitlab.Variable{
			{Key: "ONE", Value: "1", Public: true}, {Key: "TWO", Value: "$ONE", Public: true, Raw: true, Masked: true}, {Key: "FILE", Value: "x", Public: true, File: true},
		},
		BeforeScript: []string{"make deps"}, Script: []string{"make", "make check", "make install"}, AfterScript: []string{"make clean"},
		Artifacts: []gitlab.Artifact{{Paths: []string{"out"}, When: gitlab.Always, ExpireIn: "1 day", Type: "archive", Format: "zip"}},
		Cache:     []gitlab.Cache{{Key: "k", Paths: []string{"vendor"}, Policy: "pull"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAJobFileWithAMistakeNamesItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "empty",
		"image: x":                      "script: missing",
		"script: [a]\nimge: x":          `line 2: unknown key "imge"`,
		"script: [a]\nimage:\n  nam: x": `line 3: unknown key "nam"`,
		"script: [a]\nservices:\n  - name: x\n    docker: {usr: y}": `line 4: unknown key "usr"`,
		"script: [a]\nvariables: [x]":                               "line 2: variables: not a mapping",
		"script: [a]\ncache:\n  - {pahts: [x]}":                     `line 3: unknown key "pahts"`,
		"script: [a]\nartifacts: {when: sometime}":                  `line 2: when: "sometime"`,
		"script: {a: b}": "line 1",
		"- script":       "line 1: not a mapping",
		"script: [":      "line 1",
	} {
		if _, err := gitlab.ParseJob([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "job file: ") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
