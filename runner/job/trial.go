package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
)

// TryGeneration starts a machine of a generation that is not published yet, as for a job, and
// executes the test of the image in it, if there is one. The output of the test goes to the log. The
// machine is removed at the end.
func (d *Driver) TryGeneration(ctx context.Context, name string, generation image.Generation, log io.Writer) (err error) {
	if !host.RunsSystemd() {
		d.untested.Do(func() {
			d.Note("warning: systemd does not run this host, so no machine can be started here, and nothing new is tested")
		})
		return nil
	}
	if err := d.Machines.Collect(ctx); err != nil { // a trial that was killed, mostly
		d.Note("warning: clean up after dead jobs: %v", err)
	}
	settings, err := d.Settings(name)
	if err != nil {
		return err
	}
	spec, err := d.design(name, generation, settings)
	if err != nil {
		return err
	}
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	spec = planTrial(spec)
	spec.Caller = &self
	if err := d.Machines.Start(ctx, spec); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, spec.Job, spec.Owner)) }()

	// In a job, gitlab-runner's script sets -e. It is set on the first line of the test here, so that
	// line numbers in errors are those of the playbook.
	script := "set -e; " + settings.Test + "\n"
	limit, cancel := context.WithTimeoutCause(ctx, trialLimit, fmt.Errorf("nspawn_runner_test took longer than %s", trialLimit))
	defer cancel()
	outcome, err := d.Machines.Exec(limit, spec.Job, allowed, machine.Script{
		Source: strings.NewReader(script), Label: "test", Stdout: log, Stderr: log,
	})
	reached := outcome.Reached()
	switch {
	case err != nil:
		return err
	case reached != nil:
		return fmt.Errorf("nspawn_runner_test: %s", strings.Join(reached, "; "))
	case outcome.Code != 0:
		return fmt.Errorf("nspawn_runner_test ended with exit code %d", outcome.Code)
	}
	return nil
}
