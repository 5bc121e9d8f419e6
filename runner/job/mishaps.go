package job

import (
	"context"
	"strings"
	"time"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
)

// followServices shows in the log what the services of a job say, if it wants to see that,
// until the returned function is called.
func (d *Driver) followServices(ctx context.Context, machines machine.Store, main machine.Record) (end func()) {
	enough, done := make(chan struct{}), make(chan struct{})
	go func() {
		machines.FollowAll(ctx, main, enough, func(line string) { d.Note("%s", line) })
		close(done)
	}()
	return func() {
		close(enough)
		<-done
	}
}

// mainOf returns the record of a job's main machine and where it is, if the job may know of
// it and it runs.
func (d *Driver) mainOf(job gitlab.Job, explicit string) (machines machine.Store, main machine.Record, found bool) {
	machines, err := d.machinesOf(job)
	if err != nil {
		return machines, main, false
	}
	main, err = machines.RecordOf(job.ID, machine.Main)
	return machines, main, err == nil && mayTouch(job, explicit)(main) == nil && main.State() == "running"
}

// sayMishaps tells what has happened to the services of a job since it was last told. Where
// the job's machine has ended, its services have with it, and that is no mishap of theirs.
func (d *Driver) sayMishaps(ctx context.Context, machines machine.Store, main machine.Record) {
	if main.State() != "running" {
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
func (d *Driver) sayLastWords(ctx context.Context, machines machine.Store, main machine.Record) {
	if status := gitlab.Status(d.Env); status != gitlab.ScriptFailed && status != gitlab.ScriptTimedOut {
		return
	}
	for _, m := range machines.AllMishaps(main) {
		began := time.Now()
		lines := machines.LastWords(ctx, main.Job, m.Role)
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
