package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nspawn-runner/runner/host"
)

// Entrance is what a build needs to execute commands in a machine through its namespaces. Scripts of jobs
// are executed with Exec.
type Entrance struct {
	// Leader is the machine's first process. The commands enter its namespaces.
	Leader host.Process
	// RootUID is the host's user id of the machine's root, 0 if the machine is privileged.
	RootUID int
	// Group is the directory of a control group of the machine for the commands. So the machine's
	// limits hold for them, and they end with the machine.
	Group string
}

// entranceGroup is the control group of commands from outside, beside those of the machine's units.
const entranceGroup = "nspawn-runner"

// Entrance prepares the main machine of a build for commands from the host.
func (s Store) Entrance(job string) (Entrance, error) {
	record, err := s.RecordOf(job, Main)
	if err != nil {
		return Entrance{}, err
	}
	if !record.up() {
		return Entrance{}, fmt.Errorf("machine %s: it is not up", Name(record.ID))
	}
	group := filepath.Join(record.payload(), entranceGroup)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return Entrance{}, fmt.Errorf("machine %s: a control group for commands: %w", Name(record.ID), err)
	}
	return Entrance{Leader: *record.Leader, RootUID: record.RootUID, Group: group}, nil
}

// Touched returns the paths, below a machine's root, that its start may make or change.
func Touched(spec Spec) []string {
	touched := furnished()
	for _, bind := range spec.Binds {
		touched = append(touched, strings.TrimPrefix(bind.To, "/"))
	}
	return touched
}

// payload returns the directory of the control group of the machine's own service manager. systemd-nspawn
// makes it, beside one for itself.
func (r Record) payload() string { return filepath.Join("/sys/fs/cgroup", r.Cgroup, "payload") }
