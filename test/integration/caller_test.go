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
// driver as a child in a process group of its own.
type caller struct {
	h       *host
	id      string
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
	c.cmd.Env = append(os.Environ(), "JOB_RESPONSE_FILE="+writeResponse(t, number, image),
		"BUILD_FAILURE_EXIT_CODE=1", "SYSTEM_FAILURE_EXIT_CODE=2", "BUILD_EXIT_CODE_FILE="+filepath.Join(dir, "code"))
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
	for _, word := range append(append([]string{"env"}, env...), append([]string{"setsid", driver, "--config", c.h.config}, args...)...) {
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
