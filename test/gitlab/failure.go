package gitlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// failure is an error that is not the system's: the job's own, or its time
// is over. gitlab-runner never retries a try of prepare that ended in one.
type failure struct {
	reason Reason
	code   int
	text   string
}

// Error is the failure in GitLab's words.
func (f *failure) Error() string { return f.text }

var (
	errCanceled = errors.New("canceled")
	errStopped  = errors.New("aborted: terminated")
	errDormant  = errors.New("failed to kill process, likely process is dormant")
)

// ended is why the whole job is over before its last stage.
func (r *Running) ended(ctx context.Context) error {
	switch context.Cause(ctx) {
	case errStopped:
		return errStopped
	case context.DeadlineExceeded:
		return &failure{reason: Timeout, text: fmt.Sprintf("execution took longer than %v", r.job.Timeout)}
	}
	return errCanceled
}

// judge is what the end of a process means.
func (t *try) judge(s StageResult) error {
	status := fmt.Sprintf("exit status %d", s.ExitStatus)
	if s.Signal != 0 {
		status = "signal: " + s.Signal.String()
	}
	switch {
	case s.ExitStatus == 0:
		return nil
	case s.ExitStatus == 1 && t.exitCodeFile() == "":
		return &failure{reason: ScriptFailure, code: 1, text: status}
	case s.ExitStatus == 1:
		code, err := readExitCode(t.exitCodeFile())
		if err != nil {
			return fmt.Errorf("unknown Custom executor executable exit code 2; executable execution terminated with: %s (%w)", status, err)
		}
		return &failure{reason: ScriptFailure, code: code, text: fmt.Sprintf("exit code %d", code)}
	case s.ExitStatus == 2:
		return errors.New(status)
	}
	return fmt.Errorf("unknown Custom executor executable exit code %d; executable execution terminated with: %s", s.ExitStatus, status)
}

// readExitCode takes the script's exit code from BUILD_EXIT_CODE_FILE, one
// file for the whole job that nobody empties. Without the file the code is
// that of the driver. What is there must be a decimal integer in the first
// line and nothing else.
func readExitCode(name string) (int, error) {
	file, err := os.Open(name)
	if err != nil {
		return 1, nil
	}
	defer file.Close()
	line := bufio.NewScanner(file)
	line.Scan() // a directory, or nothing at all, is an empty line
	code, err := strconv.Atoi(line.Text())
	if err != nil {
		return 0, fmt.Errorf("exit code file: %w", err)
	}
	return code, nil
}
