package gitlab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/google/renameio/v2"
)

// driverConfig is the JSON object of the config stage.
type driverConfig struct {
	Driver struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"driver"`
	BuildsDir         string `json:"builds_dir"`
	CacheDir          string `json:"cache_dir"`
	BuildsDirIsShared bool   `json:"builds_dir_is_shared"`
	Shell             string `json:"shell"`
}

// LastScript is what gitlab-runner calls the script with which it ends each job
// that is not cut short.
const LastScript = "cleanup_file_variables"

// AfterScript is what it calls the script after the job's own, whose failure is a warning.
const AfterScript = "after_script"

// Status says how the job's script ended, or "running" before that: CI_JOB_STATUS, which
// gitlab-runner sets before after_script, and which stays so up to and with cleanup
// (executeAfterScript in common/build.go of gitlab-runner 19). When the whole job's time is
// over, gitlab-runner no longer gets there. A job may set the variable to anything.
func Status(env Env) string { return env("CUSTOM_ENV_CI_JOB_STATUS") }

// What Status says of a script that failed, and of one that took longer than the job's
// RUNNER_SCRIPT_TIMEOUT.
const (
	ScriptFailed   = "failed"
	ScriptTimedOut = "timedout"
)

// BuildsDir and CacheDir are where in the machine the job works and keeps its
// cache. Neither may lie behind a symlink: scripts reach the second from the
// first by a relative path.
const (
	BuildsDir = "/builds"
	CacheDir  = "/cache"
)

// ConfigJSON is what the config stage prints.
func ConfigJSON(version string) []byte {
	c := driverConfig{BuildsDir: BuildsDir, CacheDir: CacheDir, Shell: "bash"}
	c.Driver.Name = "nspawn-runner"
	c.Driver.Version = version
	out, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and a bool cannot fail
	}
	return append(out, '\n')
}

// BuildFailure is an error that the job is to blame for: its script failed,
// or it asked for what cannot be. GitLab does not try it again.
type BuildFailure struct {
	// Code is the script's exit code, at least 1.
	Code int
	// Err is the reason, or nil if the script's output says it.
	Err error
}

// Error returns the reason, or the exit code if there is no other.
func (f *BuildFailure) Error() string {
	if f.Err == nil {
		return fmt.Sprintf("the script failed with exit code %d", f.Code)
	}
	return f.Err.Error()
}

// Unwrap returns the reason, which may be nil.
func (f *BuildFailure) Unwrap() error { return f.Err }

// ExitCode turns the error of a stage into the exit code that gitlab-runner
// wants, and for a build failure writes the script's code where it looks for
// it. Every build failure writes: the file is the job's, not the stage's, and
// nobody empties it between stages.
func ExitCode(env Env, stage error) (code int, err error) {
	var build *BuildFailure
	switch {
	case stage == nil:
		return 0, nil
	case errors.As(stage, &build):
		if path := env("BUILD_EXIT_CODE_FILE"); path != "" {
			err = renameio.WriteFile(path, []byte(strconv.Itoa(max(1, build.Code))), 0o600)
			if err != nil {
				// No code is better than that of an earlier stage.
				os.Remove(path)
				err = fmt.Errorf("tell gitlab-runner the script's exit code: %w", err)
			}
		}
		return codeFrom(env("BUILD_FAILURE_EXIT_CODE"), 1), err
	default:
		return codeFrom(env("SYSTEM_FAILURE_EXIT_CODE"), 2), nil
	}
}

func codeFrom(value string, without int) int {
	if code, err := strconv.Atoi(value); err == nil && code > 0 && code < 256 {
		return code
	}
	return without
}
