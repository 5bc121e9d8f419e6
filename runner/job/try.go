package job

import (
	"context"
	"errors"
	"fmt"
	"os"

	"al.essio.dev/pkg/shellescape"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// Try starts a machine, executes a script in it, and removes the machine. If the script fails, the
// error is a *gitlab.BuildFailure with its exit code.
func (d *Driver) Try(ctx context.Context, image string, script machine.Script) (err error) {
	if err := d.NeedHost(); err != nil {
		return err
	}
	if err := d.Machines.Collect(ctx); err != nil {
		d.Note("warning: clean up after dead jobs: %v", err)
	}
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	job := gitlab.Job{ID: ownID("try"), Image: image}
	job.Owner = job.ID
	if err := d.start(ctx, job, &self, everything, new(observation)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, job.ID, job.Owner)) }()
	return d.exec(ctx, job, "", script, new(observation))
}

// CommandScript returns a shell script that executes one command. The shell expands none of its words.
func CommandScript(argv []string) string {
	return fmt.Sprintf("exec %s\n", shellescape.QuoteCommand(argv))
}
