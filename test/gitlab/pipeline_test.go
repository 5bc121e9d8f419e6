package gitlab

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

const pipeline = `
stages: [check]
.base:
  image: trixie
  variables: {A: base, B: base}
  before_script: [echo base]
  script: [echo base]
.more:
  variables: {C: script}
build:
  extends: [.base, .more]
  stage: check
  tags: [x]
  rules: [{if: $X}]
  variables: {B: own}
  script: [echo own]
again:
  extends: build
`

func TestAJobOfAPipelineHasWhatItExtendsAndWinsOverIt(t *testing.T) {
	for _, name := range []string{"build", "again"} {
		job, err := ParsePipelineJob([]byte(pipeline), name)
		if err != nil {
			t.Fatal(err)
		}
		variables := map[string]string{}
		for _, v := range job.Variables {
			variables[v.Key] = v.Value
		}
		if !reflect.DeepEqual(variables, map[string]string{"A": "base", "B": "own", "C": "script"}) {
			t.Errorf("%s: variables %v", name, variables)
		}
		if job.Name != name || job.Image.Name != "trixie" || strings.Join(job.script(), "; ") != "echo base; echo own" {
			t.Errorf("%s: %+v", name, job)
		}
	}
}

func TestAPipelineThatCannotBePlayedIsRefusedWithTheReason(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "not a mapping",
		"other: {script: [true]}":        `there is no job "job"`,
		"job: {extends: .a}":             `there is no job ".a"`,
		"job: {extends: job}":            "nested too deep",
		"job: {image: x}":                "script: missing",
		"job: {script: [x], scirpt: []}": `unknown key "scirpt"`,
		"job: [x]":                       "not a mapping",
		"default: {}\njob: {script: []}": "line 1: default: is not simulated",
	} {
		_, err := ParsePipelineJob([]byte(text), "job")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestTheProjectsOwnPipelineCanBePlayed(t *testing.T) {
	text, err := os.ReadFile("../../.gitlab-ci.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lint", "build", "unit", "lab and VM"} {
		if _, err := ParsePipelineJob(text, name); err != nil {
			t.Error(err)
		}
	}
}
