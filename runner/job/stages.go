package job

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// Stage is a call of this program for a job.
type Stage struct {
	// ID and Image are those of the command line. "" stands for what GitLab says.
	ID, Image string
	// DefaultImage is the image of jobs that name none.
	DefaultImage string
	// Allowed says which images the job may have, of those that need permission.
	Allowed Permission
	// Shell executes scripts, "" for the shell of the image.
	Shell string
	// Log is the pipe that gitlab-runner reads. If its read end is closed, gitlab-runner is dead.
	Log *os.File
}

// Prepare is the prepare stage: it starts the job's machine.
func (d *Driver) Prepare(ctx context.Context, stage Stage) error {
	o := observe("prepare")
	err := d.prepare(ctx, stage, o)
	o.endPrepare(ctx, d.Machines, err)
	return err
}

func (d *Driver) prepare(ctx context.Context, stage Stage, o *observation) error {
	job, err := gitlab.FromEnvironment(d.Env, stage.ID, stage.Image)
	if err != nil {
		return err
	}
	o.job = job
	if err := d.NeedHost(); err != nil {
		return err
	}
	if job.Image == "" {
		job.Image = stage.DefaultImage
	}
	// This comes first: a gitlab-runner that is dead cannot be found any more.
	var from *host.Process
	if job.Trusted {
		from = caller()
		var cancel context.CancelFunc
		ctx, cancel = whileHeard(ctx, stage.Log)
		defer cancel()
	}
	fault.Here("prepare: caller known")
	if err := d.Machines.Collect(ctx); err != nil {
		// Without the reason, which may name processes of another project's job.
		d.Note("warning: clean up after dead jobs: not all of it could be removed; on the host, nspawn-runner gc says why")
	}
	fault.Here("prepare: machines of dead jobs gone")
	return d.start(ctx, job, from, stage.Allowed, o)
}

// start starts a machine for a job.
func (d *Driver) start(ctx context.Context, job gitlab.Job, from *host.Process, may Permission, o *observation) error {
	name, err := d.find(job.Image)
	if err != nil {
		return failure.Because(failure.NoImage, err)
	}
	o.image = name
	var held holds
	defer func() { held.letGo() }()
	generation, release, err := d.Images.Hold(ctx, name)
	if err != nil {
		return failure.Because(failure.NoImage, err)
	}
	o.generation = generation.Name
	held = append(held, release)
	fault.Here("prepare: image held")
	if err := d.admit(); err != nil {
		return err
	}
	settings, err := d.Settings(name)
	if err != nil {
		return err
	}
	spec, err := d.admitImage(name, generation, settings, may)
	if err != nil {
		return err
	}
	spec = planJob(spec, job, settings)
	spec.Caller = from
	var services []orderedService
	services, spec.Names, err = d.orderServices(ctx, ordering{job, spec, settings, may})
	for _, s := range services {
		defer s.spec.Recorded()
	}
	if err != nil {
		return err
	}
	if err := d.admitLayers(specsOf(spec, services)); err != nil {
		return err
	}
	if job.Trusted && from != nil {
		spec.CallerDir = machine.FindCallerDir(d.Env(gitlab.ResponseVariable))
	}
	spec.Binds = append(spec.Binds, d.helperBinds(generation.Path, from)...)
	if key := job.CacheKey(); key != "" {
		cache, release, err := d.Caches.Hold(ctx, key)
		if err != nil {
			return fmt.Errorf("cache of project %d: %w", job.Project, err)
		}
		held = append(held, release)
		fault.Here("prepare: cache held")
		spec.Binds = append(spec.Binds, machine.Bind{From: cache, To: gitlab.CacheDir, Writable: true})
	}
	spec.Recorded = held.letGo // from then on, the record says what is in use
	if len(services) == 0 {
		return d.Machines.Start(ctx, spec)
	}
	return d.startWithServices(ctx, spec, services)
}

// holds are functions that release what is held for a job. Each may be called twice.
type holds []func()

func (h holds) letGo() {
	for _, release := range h {
		release()
	}
}

// Run is the run stage: it executes the script at a path in the job's machine. label is the
// sub-stage of the job. After [gitlab.LastScript], Run writes to the log what the job used.
func (d *Driver) Run(ctx context.Context, stage Stage, path, label string, stdout, stderr io.Writer) error {
	o := observe("run")
	err := d.run(ctx, stage, path, label, stdout, stderr, o)
	if machines, unknown := d.machinesOf(o.job); unknown == nil {
		o.endRun(ctx, machines, label, mayTouch(o.job, stage.ID), err)
	}
	return err
}

func (d *Driver) run(ctx context.Context, stage Stage, path, label string, stdout, stderr io.Writer, o *observation) error {
	job, err := gitlab.FromEnvironment(d.Env, stage.ID, "")
	if err != nil {
		return err
	}
	o.job = job
	if err := host.NeedRoot(); err != nil {
		return err
	}
	if err := limitOwnMemory(); err != nil {
		return fmt.Errorf("limit this program's memory: %w", err)
	}
	source, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("script: %w", err)
	}
	defer source.Close()
	machines, main, found := d.mainOf(job, stage.ID)
	endFollow := func() {}
	if found && job.DebugServices {
		endFollow = d.followServices(ctx, machines, main)
	}
	err = d.exec(ctx, job, stage.ID, machine.Script{
		Source: source, Shell: stage.Shell, Label: label,
		Stdout: stdout, Stderr: stderr,
		Alone: job.Trusted,
	}, o)
	endFollow()
	if !found || ctx.Err() != nil {
		return err
	}
	d.sayMishaps(ctx, machines, main)
	if err == nil && label == gitlab.LastScript {
		d.sayLastWords(ctx, machines, main)
		d.sayUsage(machines, job)
	}
	return err
}

// sayUsage writes to the job's log what the job used.
func (d *Driver) sayUsage(machines machine.Store, job gitlab.Job) {
	record, usage, err := machines.Usage(job.ID)
	if err == nil && !record.Quiet {
		d.Note("%s", usage)
		for _, line := range machines.UsageBeside(record) {
			d.Note("%s", line)
		}
	}
}

// exec executes a script. If the script fails, the error is a *gitlab.BuildFailure; any other
// error is the system's failure.
func (d *Driver) exec(ctx context.Context, job gitlab.Job, explicit string, script machine.Script, o *observation) error {
	machines, err := d.machinesOf(job)
	if err != nil {
		return err
	}
	outcome, err := machines.Exec(ctx, job.ID, mayTouch(job, explicit), script)
	if err != nil {
		return err
	}
	for _, line := range outcome.Reached() {
		d.Note("%s", line)
	}
	o.reached = reasonsOf(outcome)
	if outcome.Code == 0 {
		return nil
	}
	failure := &gitlab.BuildFailure{Code: outcome.Code}
	if outcome.Signal > 0 && outcome.OutOfMemory == nil {
		failure.Err = fmt.Errorf("the script was killed by signal %d (%s)", outcome.Signal, unix.SignalName(unix.Signal(outcome.Signal)))
	}
	return failure
}

// Cleanup is the cleanup stage: it removes the job's machines. Signals should not end ctx, because
// gitlab-runner calls cleanup once.
func (d *Driver) Cleanup(ctx context.Context, stage Stage) error {
	o := observe("cleanup")
	machines, err := d.cleanup(ctx, stage, o)
	o.endCleanup(machines, err)
	d.foldCounters(ctx)
	return err
}

// cleanup also returns the store that has, or had, the job's machines.
func (d *Driver) cleanup(ctx context.Context, stage Stage, o *observation) (machines machine.Store, err error) {
	machines = d.Machines
	job, err := gitlab.FromEnvironment(d.Env, stage.ID, "")
	if err != nil {
		return machines, err
	}
	o.job = job
	if err := host.NeedSystemd(); err != nil {
		return machines, err
	}
	ctx, cancel := context.WithTimeout(ctx, CleanupTimeout)
	defer cancel()
	if machines, err = d.machinesOf(job); err != nil {
		return machines, err
	}
	o.lookBeforeEnd(machines, gitlab.Status(d.Env))
	if err := machines.Stop(ctx, job.ID, mayTouch(job, stage.ID)); err != nil {
		return machines, err
	}
	fault.Here("cleanup: machine gone")
	if d.Unread != nil {
		d.Note("warning: %v; the job's machine was removed all the same, caches stay as they are", d.Unread)
		return machines, nil
	}
	if err := d.pruneCaches(ctx); err != nil {
		d.Note("warning: keep the caches within bounds: %v", err)
	}
	return machines, nil
}
