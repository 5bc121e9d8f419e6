package gitlab

import (
	"fmt"
	"testing"
)

func TestAJobsCredentialsForRegistriesAreKnown(t *testing.T) {
	const start = `{"id":42,"token":"t","credentials":[{"type":"other","url":"x"},
{"type":"registry","url":"registry.example.org","username":"ci","password":"p"},{"type":"registry"}],"variables":[
{"key":"DOCKER_AUTH_CONFIG","value":"first"},{"key":"DOCKER_AUTH_CONFIG","value":"second"`
	for rest, want := range map[string]string{
		`}]}`:               "expanded",
		`,"raw":true}]}`:    "second",
		`,"file":true}]}`:   "second",
		`,"public":true}]}`: "expanded",
	} {
		job, err := FromEnvironment(env("JOB_RESPONSE_FILE", responseFile(t, start+rest), "CUSTOM_ENV_DOCKER_AUTH_CONFIG", "expanded"), "", "")
		if err != nil || job.Registry.DockerConfig != want || fmt.Sprint(job.Registry.Credentials) != "[{registry.example.org ci p}]" {
			t.Errorf("%s: %+v, %v", rest, job.Registry, err)
		}
	}
	job, err := FromEnvironment(env("CUSTOM_ENV_CI_JOB_ID", "7", "CUSTOM_ENV_DOCKER_AUTH_CONFIG", "text"), "", "")
	if err != nil || job.Registry.DockerConfig != "text" {
		t.Errorf("%+v, %v", job.Registry, err)
	}
}

func TestAPullPolicyIsAWordOrAList(t *testing.T) {
	for text, want := range map[string]string{
		`"always"`: "[always]", `["always","never"]`: "[always never]", `""`: "[]", `null`: "[]", `7`: "[]", `[1]`: "[]", `{}`: "[]",
	} {
		job, err := parseResponse([]byte(`{"id":1,"services":[{"name":"x","pull_policy":`+text+`}]}`), env())
		if err != nil || len(job.Services) != 1 || text != "[1]" && fmt.Sprint(job.Services[0].PullPolicy) != want {
			t.Errorf("%s: %+v, %v", text, job.Services, err)
		}
	}
}
