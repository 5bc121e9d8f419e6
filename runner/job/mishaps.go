package job

import (
	"context"
	"strings"
	"time"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
)

// sayMishaps tells what has happened to the services of a job since it was last told. Where
// the job's machine has ended, its services have with it, and that is no mishap of theirs.
func (d *Driver) sayMishaps(ctx context.Context, machines machine.Store, job gitlab.Job) {
	main, err := machines.RecordOf(job.ID, machine.Main)
	if err != nil || main.State() != "running" {
		return
	}
	for _, m := range machines.Mishaps(ctx, main) {
		for _, what := range m.What {
			d.Note("warning: service %s: %s", m.Service, what)
		}
	}
}

// sayLastWords ends the log of a job that failed with what those of its services said last
// that a mishap happened to. It may be why. The lines are folded, since it may as well not be.
func (d *Driver) sayLastWords(ctx context.Context, machines machine.Store, job gitlab.Job) {
	if d.Env("CUSTOM_ENV_CI_JOB_STATUS") != "failed" {
		return
	}
	main, err := machines.RecordOf(job.ID, machine.Main)
	if err != nil {
		return
	}
	for _, m := range machines.AllMishaps(main) {
		began := time.Now()
		lines := machines.LastWords(ctx, job.ID, m.Role)
		if len(lines) == 0 {
			lines = []string{"nothing"}
		}
		section := "last_lines_of_" + string(m.Role)
		d.Note("%s", gitlab.SectionStart(section, "The last lines of service "+m.Service+" ("+strings.Join(m.What, "; ")+")", began))
		for _, line := range lines {
			d.Note("  %s", line)
		}
		d.Note("%s", gitlab.SectionEnd(section, time.Now()))
	}
}
