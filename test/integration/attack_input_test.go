package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const escapes = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u009b1m"

// fill makes a hostile value as long as the kernel lets a variable of the
// environment be.
func fill(name string) string {
	return (escapes + strings.Repeat("x\n"+escapes, 1<<17))[:1<<17-len(name)-2]
}

// A job sets each variable whose name begins with CUSTOM_ENV_ to what it likes.
func TestAttacksByVariablesAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	var all []string
	for _, name := range []string{"CUSTOM_ENV_CI_JOB_ID", "CUSTOM_ENV_CI_JOB_IMAGE", "CUSTOM_ENV_CI_JOB_SERVICES", "CUSTOM_ENV_CI_SERVER_URL", "CUSTOM_ENV_CI_JOB_TIMEOUT", "CUSTOM_ENV_PATH", "CUSTOM_ENV_LD_PRELOAD", "CUSTOM_ENV_X"} {
		value := name + "=" + fill(name)
		id := newID()
		all = append(all, value)
		h.hostile(t, "fill "+name, []string{"CUSTOM_ENV_CI_JOB_ID=" + id, "CUSTOM_ENV_CI_JOB_IMAGE=bookworm", value}, id)
	}
	h.hostile(t, "fill all variables at once", all, newID())
	for _, image := range []string{escapes, "bookworm" + escapes, "../../etc", "-v", strings.Repeat("../", 40) + "etc/passwd", ".trash", "a/" + escapes + ":b"} {
		id := newID()
		h.hostile(t, fmt.Sprintf("name an image %q", image), []string{"CUSTOM_ENV_CI_JOB_ID=" + id, "CUSTOM_ENV_CI_JOB_IMAGE=" + image}, id)
	}
}

// hostile calls each stage with an environment, and looks at what it says and at
// what a person sees afterwards.
func (h *host) hostile(t *testing.T, name string, env []string, id string) {
	t.Helper()
	start := time.Now()
	for _, stage := range [][]string{{"prepare"}, {"run", script(t, "exit 7"), escapes}, {"cleanup"}, {"machine", "list"}, {"gc", "--dry-run"}} {
		c := h.driveWith(t, env, stage...)
		if out := c.stdout + c.stderr; hasControls(out) || len(out) > 4000 {
			gotThrough(t, name, stage[0], fmt.Sprintf("%.1000q", out))
		}
		if stage[0] == "run" && c.status == 0 {
			gotThrough(t, name, "a script that fails succeeds")
		}
	}
	h.drive(t, "cleanup", "--id", id)
	if took := time.Since(start); took > 2*time.Minute {
		gotThrough(t, name, took)
	}
	held(name)
}

// The file is GitLab's word, but has a job's variables in it, and may be broken.
func TestAttacksByTheJobsResponseAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id := newID()
	whole := `{"id":` + id + `,"token":"t","image":{"name":"bookworm"},"variables":[{"key":"X","value":"` + strings.Repeat("x", 8<<20) + `"},{"key":"Y","value":"\u001b[2J"}]}`
	for name, test := range map[string]struct {
		content string
		good    bool
	}{
		"8 MiB":                     {whole, true},
		"truncated":                 {whole[:len(whole)/2], false},
		"empty":                     {"", false},
		"no JSON":                   {escapes, false},
		"deep":                      {strings.Repeat("[", 20<<20), false},
		"deep in a field":           {`{"id":1,"x":` + strings.Repeat(`{"x":`, 4<<20), false},
		"an id that leads away":     {`{"id":"../../etc","image":{"name":"bookworm"}}`, false},
		"a negative id":             {`{"id":-1,"image":{"name":"bookworm"}}`, false},
		"an id of a million digits": {`{"id":` + strings.Repeat("9", 1000000) + `}`, false},
		"a hostile image":           {`{"id":` + id + `,"image":{"name":"` + "\\u001b[31m../x" + `"}}`, false},
		"hostile services":          {`{"id":` + id + `,"image":{"name":"nothing"},"services":[{"name":"\u001b[31m` + strings.Repeat("x", 1<<20) + `"}]}`, false},
		"other types":               {`{"id":{"a":1},"image":7,"variables":"x","services":{}}`, false},
	} {
		path := filepath.Join(t.TempDir(), "response.json")
		must(t, os.WriteFile(path, []byte(test.content), 0o600))
		h.respond(t, "a job response: "+name, path, test.good)
	}
	h.respond(t, "a job response: missing", "/nonexistent/response.json", false)
	h.respond(t, "a job response: a directory", "/etc", false)
}

func (h *host) respond(t *testing.T, name, path string, good bool) {
	t.Helper()
	env, start := []string{"JOB_RESPONSE_FILE=" + path}, time.Now()
	c := h.driveWith(t, env, "prepare")
	end := h.driveWith(t, env, "cleanup")
	if out := c.stderr + c.stdout + end.stderr + end.stdout; hasControls(out) || len(out) > 4000 || strings.Contains(out, "goroutine") {
		gotThrough(t, name, fmt.Sprintf("%.1000q", out))
	}
	if c.status == 0 != good || good && end.status != 0 || time.Since(start) > time.Minute {
		gotThrough(t, name, time.Since(start), c, end)
	}
	held(name)
}

func TestAScriptOf10MBIsExecutedToItsEnd(t *testing.T) {
	h := onHost(t, "overlay")
	text := strings.Repeat("# "+escapes[:1]+strings.Repeat("x", 97)+"\n", 10<<20/101) + "echo the end\n"
	if c := h.run(t, h.prepared(t, "bookworm"), text); c.status != 0 || c.stdout != "the end\n" {
		t.Errorf("%d, %.100q %.1000q", c.status, c.stdout, c.stderr)
	}
}
