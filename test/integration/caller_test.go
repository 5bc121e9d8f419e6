package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// caller is the gitlab-runner of one job, which can be killed: a shell, with the
// driver as a child in a process group of its own, and that alone with env.
type caller struct {
	h       *host
	id      string
	env     []string
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
	output  string // file with what the last call printed
}

// caller starts a gitlab-runner with a job of an image. It lasts as long as the
// test, if nobody kills it before.
func (h *host) caller(t *testing.T, image string) *caller {
	t.Helper()
	number := newNumber()
	dir := t.TempDir()
	c := &caller{h: h, id: strconv.FormatInt(number, 10), cmd: exec.Command("bash"), output: filepath.Join(dir, "output")}
	c.env = []string{"JOB_RESPONSE_FILE=" + writeResponse(t, number, image),
		"BUILD_FAILURE_EXIT_CODE=1", "SYSTEM_FAILURE_EXIT_CODE=2", "BUILD_EXIT_CODE_FILE=" + filepath.Join(dir, "code")}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var err error
	c.in, err = c.cmd.StdinPipe()
	must(t, err)
	out, err := c.cmd.StdoutPipe()
	must(t, err, c.cmd.Start())
	c.answers = bufio.NewReader(out)
	t.Cleanup(c.die)
	return c
}

// writeResponse writes the response file of a job, and returns its path.
func writeResponse(t *testing.T, id int64, image string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "response.json")
	data, err := json.Marshal(map[string]any{
		"id": id, "token": "t", "image": map[string]string{"name": image},
		"variables": []map[string]string{{"key": "CI_SERVER_URL", "value": "https://gitlab.example"}},
		"job_info":  map[string]any{"project_id": 7},
	})
	must(t, err, os.WriteFile(path, data, 0o600))
	return path
}

// call has the driver called with variables on top of the environment, and
// returns its exit status, 128+n when signal n killed it, and what it printed.
func (c *caller) call(t *testing.T, driver string, env []string, args ...string) (status int, output string) {
	t.Helper()
	c.begin(t, driver, env, args...)
	return c.ended(t)
}

// ended waits for the end of the driver that begin has called.
func (c *caller) ended(t *testing.T) (status int, output string) {
	t.Helper()
	answer, err := c.answers.ReadString('\n')
	must(t, err)
	status, err = strconv.Atoi(strings.TrimSpace(answer))
	must(t, err)
	return status, c.printed(t)
}

// begin is call that does not wait for the driver's end.
func (c *caller) begin(t *testing.T, driver string, env []string, args ...string) {
	t.Helper()
	var words strings.Builder
	for _, word := range append(append(append([]string{"env"}, c.env...), env...), append([]string{"setsid", driver, "--config", c.h.config}, args...)...) {
		fmt.Fprintf(&words, "'%s' ", word)
	}
	_, err := fmt.Fprintf(c.in, "%s>%s 2>&1 </dev/null; echo $?\n", words.String(), c.output)
	must(t, err)
}

// printed is what the last call has printed up to now.
func (c *caller) printed(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.output)
	if !errors.Is(err, fs.ErrNotExist) {
		must(t, err)
	}
	return string(text)
}

// die is kill -9 of this gitlab-runner. Again does no harm.
func (c *caller) die() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// preparedByRunner starts a machine for a gitlab-runner that can be killed.
func (h *host) preparedByRunner(t *testing.T) (id string, kill func()) {
	t.Helper()
	c := h.caller(t, "bookworm")
	if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
		t.Fatalf("prepare: exit %d: %s", status, output)
	}
	return c.id, c.die
}

// The wrapper that a toml calls ends with each stage. A machine whose gitlab-runner was
// taken for it would go with it, and go on without the real one.
func TestAMachineLivesAsLongAsItsGitlabRunnerWhateverWrapsTheDriver(t *testing.T) {
	h := onHost(t, "overlay")
	for name, line := range map[string]string{
		"timeout":     `timeout 250 "$driver" "$@"`,
		"setsid":      `setsid --wait "$driver" "$@"`,
		"job control": `set -m; "$driver" "$@" & wait $!`,
		"two of them": `bash -c 'timeout 250 "$@"; exit $?' - timeout 200 "$driver" "$@"`,
		"another environment": `env -i PATH="$PATH" JOB_RESPONSE_FILE="$JOB_RESPONSE_FILE" BUILD_FAILURE_EXIT_CODE=1 ` +
			`SYSTEM_FAILURE_EXIT_CODE=2 setsid --wait "$driver" "$@"`,
	} {
		t.Run(name, func(t *testing.T) {
			wrapper := script(t, "#!/bin/bash\ndriver="+h.driver+"\n"+line+"\nexit $?\n")
			c := h.caller(t, "bookworm")
			if status, output := c.call(t, wrapper, nil, "prepare"); status != 0 {
				t.Fatalf("prepare: exit %d: %s", status, output)
			}
			h.drives(t, "gc")
			if status, output := c.call(t, wrapper, nil, "run", script(t, "echo executed"), "build_script"); output != "executed\n" {
				t.Errorf("run: exit %d: %s", status, output)
			}
			c.die()
			h.drives(t, "gc")
			if out := shell(t, "systemctl is-active nspawn-runner-"+c.id+".service || true"); strings.TrimSpace(out) == "active" {
				t.Error("it lives on without its gitlab-runner")
			}
		})
	}
}
