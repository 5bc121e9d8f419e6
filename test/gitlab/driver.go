package gitlab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Command is one stage of a driver in config.toml: its exec, args and
// exec_timeout.
type Command struct {
	Exec string   // an empty one skips the stage; run must have one
	Args []string // for run, the script and the sub-stage follow
	// Timeout is the stage's own, zero is an hour. Run has none: it is bound
	// by the job's.
	Timeout time.Duration
}

// Driver is the section [runners.custom] of config.toml, and the keys of
// [[runners]] that the driver's config stage can override.
type Driver struct {
	Config, Prepare, Run, Cleanup Command

	GracefulKillTimeout time.Duration // from SIGTERM to SIGKILL, zero is 10 minutes
	ForceKillTimeout    time.Duration // from SIGKILL to giving up, zero is 10 seconds

	BuildsDir, CacheDir string // inside the machine
	Shell               string // "bash" or "sh", empty is bash
}

// defaults fills in what config.toml may leave out.
func (d Driver) defaults() Driver {
	for _, c := range []*Command{&d.Config, &d.Prepare, &d.Cleanup} {
		if c.Timeout == 0 {
			c.Timeout = time.Hour
		}
	}
	if d.GracefulKillTimeout == 0 {
		d.GracefulKillTimeout = 10 * time.Minute
	}
	if d.ForceKillTimeout == 0 {
		d.ForceKillTimeout = 10 * time.Second
	}
	if d.Shell == "" {
		d.Shell = "bash"
	}
	return d
}

// answer is what the driver's config stage may print. Pointers tell a key
// that is missing, which leaves config.toml's value alone, from an empty one.
type answer struct {
	Driver *struct {
		Name    *string `json:"name"`
		Version *string `json:"version"`
	} `json:"driver"`
	Hostname          *string           `json:"hostname"`
	BuildsDir         *string           `json:"builds_dir"`
	CacheDir          *string           `json:"cache_dir"`
	BuildsDirIsShared *bool             `json:"builds_dir_is_shared"`
	Shell             *string           `json:"shell"`
	JobEnv            map[string]string `json:"job_env"`
}

// parseAnswer reads config's stdout: nothing at all, or exactly one object.
func parseAnswer(stdout []byte) (answer, error) {
	var a answer
	if len(stdout) == 0 {
		return a, nil
	}
	if !bytes.HasPrefix(bytes.TrimSpace(stdout), []byte("{")) {
		return a, errors.New("parse JSON output: not an object")
	}
	if err := json.Unmarshal(stdout, &a); err != nil {
		return a, fmt.Errorf("parse JSON output: %w", err)
	}
	return a, nil
}

// name is the driver's, as the job's log shows it.
func (a answer) name() string {
	switch {
	case a.Driver == nil || a.Driver.Name == nil:
		return ""
	case a.Driver.Version == nil:
		return " with driver " + *a.Driver.Name
	}
	return " with driver " + *a.Driver.Name + " " + *a.Driver.Version
}

// override is what a key of the driver's answer makes of config.toml's value.
func override[T any](value T, answered *T) T {
	if answered != nil {
		return *answered
	}
	return value
}
