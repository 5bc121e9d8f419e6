package job

import (
	"context"
	"strings"
	"time"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
)

// followServices writes to the job's log what its services say, if the job wants that
// (CI_DEBUG_SERVICES), until end is called.
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

// mainOf returns the record of a job's main machine, and the store that has it. found says whether it
// runs, and the job may use it.
func (d *Driver) mainOf(job gitlab.Job, explicit string) (machines machine.Store, main machine.Record, found bool) {
	machines, err := d.machinesOf(job)
	if err != nil {
		return machines, main, false
	}
	main, err = machines.RecordOf(job.ID, machine.Main)
	return machines, main, err == nil && mayTouch(job, explicit)(main) == nil && main.State() == "running"
}

// sayMishaps writes to the job's log what has happened to its services since the last call. If the
// job's machine has ended, its services ended with it, which is not worth a line.
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

// sayLastWords ends the log of a failed job with the last lines of each service that had a mishap: it
// may be why the job failed. The section is collapsed, because it may not.
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
