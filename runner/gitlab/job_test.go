package gitlab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// env is an environment of a test.
func env(pairs ...string) Env {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

const answer = `{"id":42,"token":"secret","job_info":{"project_id":7},
"git_info":{"protected":true},"runner_info":{"timeout":3600},
"variables":[{"key":"CI_SERVER_URL","value":"https://gitlab.example.org"},{"key":"CI_SERVER_URL","value":"https://evil.example"}],
"image":{"name":"debian:bookworm"},"services":[{"name":"postgres"}]}`

func responseFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "response.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheResponseFileWinsOverWhatAJobCanSet(t *testing.T) {
	job, err := FromEnvironment(env(
		"JOB_RESPONSE_FILE", responseFile(t, answer),
		"CUSTOM_ENV_CI_JOB_ID", "13",
		"CUSTOM_ENV_CI_JOB_IMAGE", "other",
		"CUSTOM_ENV_CI_SERVER_URL", "https://evil.example",
	), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if job.ID != "42" || job.Image != "debian:bookworm" || !job.Trusted || !job.Protected || job.Timeout != time.Hour || job.Project != 7 {
		t.Errorf("%+v", job)
	}
	if !strings.HasPrefix(job.Owner, "https://gitlab.example.org ") || strings.Contains(job.Owner, "secret") {
		t.Errorf("owner %q: want GitLab's own URL, and not the token itself", job.Owner)
	}
	if len(job.Services) != 1 || job.Services[0].Name != "postgres" {
		t.Errorf("services %+v", job.Services)
	}
}

func TestTheCommandLineWinsOverBoth(t *testing.T) {
	job, err := FromEnvironment(env("JOB_RESPONSE_FILE", responseFile(t, answer)), "7", "sid")
	if err != nil || job.ID != "7" || job.Image != "sid" {
		t.Errorf("%+v, %v", job, err)
	}
}

func TestWithoutAResponseFileTheEnvironmentCounts(t *testing.T) {
	job, err := FromEnvironment(env("CUSTOM_ENV_CI_JOB_ID", "5", "CUSTOM_ENV_CI_JOB_IMAGE", "sid", "CUSTOM_ENV_CI_JOB_SERVICES", `[{"name":"redis"}]`), "", "")
	if err != nil || job.ID != "5" || job.Image != "sid" || job.Trusted || job.Owner != "" || len(job.Services) != 1 {
		t.Errorf("%+v, %v", job, err)
	}
}

func TestAResponseFileThatCannotBeReadIsAnErrorAndNoReasonToTrustTheJob(t *testing.T) {
	for name, text := range map[string]string{"truncated": answer[:50], "empty": "", "a list": "[]", "no id": "{}", "hostile id": `{"id":"../../x"}`} {
		if job, err := FromEnvironment(env("JOB_RESPONSE_FILE", responseFile(t, text), "CUSTOM_ENV_CI_JOB_ID", "5"), "", ""); err == nil {
			t.Errorf("%s: %+v", name, job)
		}
	}
	if _, err := FromEnvironment(env("JOB_RESPONSE_FILE", "/nowhere", "CUSTOM_ENV_CI_JOB_ID", "5"), "", ""); err == nil {
		t.Error("missing: no error")
	}
}

func TestIDsThatAreNoNamesAreRefused(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "../x", "-x", "x-", "x.", "a..b", "a_b", "a-.b", "a.-b", "a b", "a\n", "a\x00", "ä", strings.Repeat("1", 49)} {
		if checkID(id) == nil {
			t.Errorf("%q passes", id)
		}
	}
	for _, id := range []string{"1", "123456789012", "try-abc", "0ab.c-d", "a--b", strings.Repeat("1", 48)} {
		if err := checkID(id); err != nil {
			t.Error(err)
		}
	}
}

func TestCachesAreApartByGitLabProjectAndProtection(t *testing.T) {
	seen := map[string]bool{}
	for _, change := range []string{"", "42|43", "project_id\":7|project_id\":8", "protected\":true|protected\":false", "gitlab.example.org|gitlab.example.com"} {
		text := answer
		if change != "" {
			old, new, _ := strings.Cut(change, "|")
			text = strings.Replace(answer, old, new, 1)
		}
		job, err := parseResponse([]byte(text), env())
		if err != nil {
			t.Fatal(err)
		}
		key := job.CacheKey()
		if key == "" || strings.Contains(key, "..") || strings.Count(key, "/") != 2 {
			t.Errorf("key %q", key)
		}
		if seen[key] != (change == "42|43") {
			t.Errorf("after %q: key %q, seen before: %v", change, key, seen[key])
		}
		seen[key] = true
	}
	if key := (Job{ID: "1", Project: 7}).CacheKey(); key != "" {
		t.Errorf("a job that is not trusted has cache %q", key)
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(answer))
	f.Add([]byte(`{"id":1e400}`))
	f.Add([]byte(withServices))
	f.Fuzz(func(t *testing.T, data []byte) {
		job, err := parseResponse(data, env())
		if err != nil {
			return
		}
		checkServices(t, job.Services)
		if checkID(job.ID) != nil || job.Timeout < 0 || strings.Contains(job.CacheKey(), "..") {
			t.Errorf("%+v from %q", job, data)
		}
	})
}

// What a job sets itself names its machine, its image and files of this program's.
func FuzzFromEnvironment(f *testing.F) {
	f.Add("42", "debian:bookworm", `[{"name":"postgres"}]`)
	f.Add("x/../../../../../var/tmp/victim", "registry.example:5000/a/b:c", "[")
	f.Fuzz(func(t *testing.T, id, reference, services string) {
		variables := map[string]string{"CUSTOM_ENV_CI_JOB_ID": id, "CUSTOM_ENV_CI_JOB_IMAGE": reference, "CUSTOM_ENV_CI_JOB_SERVICES": services}
		job, err := FromEnvironment(func(name string) string { return variables[name] }, "", "")
		if err != nil {
			return
		}
		checkServices(t, job.Services)
		if job.ID != id || strings.ContainsAny(id, "/\x00\n ") || id == ".." || job.Trusted || job.Owner != "" || job.CacheKey() != "" {
			t.Errorf("%+v", job)
		}
		if name, err := ImageName(job.Image); err == nil && (name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00\n")) {
			t.Errorf("image %q", name)
		}
	})
}

// checkServices looks whether what becomes lines of files and variables of programs is fit.
func checkServices(t *testing.T, services []Service) {
	for _, s := range services {
		for _, name := range s.Aliases {
			if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || len(name) > 253 {
				t.Errorf("alias %q", name)
			}
		}
		for name, value := range s.Environment {
			if name == "" || strings.ContainsAny(name, "=\n'$ ") || strings.Contains(value, "\x00") {
				t.Errorf("variable %q=%q", name, value)
			}
		}
	}
}

func TestConfigIsOneJSONObject(t *testing.T) {
	var c driverConfig
	if err := json.Unmarshal(ConfigJSON("1.2.3"), &c); err != nil {
		t.Fatal(err)
	}
	if c.Driver.Name != "nspawn-runner" || c.Driver.Version != "1.2.3" || c.BuildsDir != "/builds" || c.CacheDir != "/cache" || c.Shell != "bash" || c.BuildsDirIsShared {
		t.Errorf("%+v", c)
	}
}
