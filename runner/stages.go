package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/printable"
)

const (
	// lifeWithoutTimeout is how long a machine may live when nobody said how
	// long its job may take.
	lifeWithoutTimeout = 24 * time.Hour
	// lifeMargin is what a job's machine may live longer than GitLab lets the
	// job run: for the stages around the script.
	lifeMargin = 15 * time.Minute
	// cleanupTimeout bounds the whole of cleanup.
	cleanupTimeout = 100 * time.Second
)

// GitLabConfig is the config stage: what it prints, the driver's configuration.
func (h *Host) GitLabConfig() []byte { return gitlab.ConfigJSON(Version) }

// Stage names a job and what the command line says of it.
type Stage struct {
	// ID, Image are the command line's, "" for what GitLab says.
	ID, Image string
	// DefaultImage is for jobs that name none.
	DefaultImage string
	// Allowed is which images that give more than others the job may have.
	Allowed Permission
	// Shell executes scripts, "" for the image's.
	Shell string
	// Log is what gitlab-runner reads, a pipe: when nobody reads it, gitlab-runner is dead.
	Log *os.File
}

// Prepare is the prepare stage: it starts the job's machine.
func (h *Host) Prepare(ctx context.Context, stage Stage) error {
	job, err := gitlab.FromEnvironment(h.Env, stage.ID, stage.Image)
	if err != nil {
		return err
	}
	if err := h.needHost(); err != nil {
		return err
	}
	if job.Image == "" {
		job.Image = stage.DefaultImage
	}
	if len(job.Services) > 0 {
		h.note("services are not offered by this runner yet, so these do not run: %s", printable.Line(strings.Join(job.Services, ", ")))
	}
	// First of all: once gitlab-runner is dead, nobody can tell who it was.
	var from *host.Process
	if job.Trusted {
		from = caller()
		var cancel context.CancelFunc
		ctx, cancel = whileHeard(ctx, stage.Log)
		defer cancel()
	}
	fault.Here("prepare: caller known")
	if err := h.machines().Collect(ctx); err != nil {
		// Not why: that may name what was running in another project's job.
		h.note("warning: clean up after dead jobs: not all of it could be removed; on the host, nspawn-runner gc says why")
	}
	fault.Here("prepare: machines of dead jobs gone")
	return h.start(ctx, job, from, stage.Allowed)
}

// start starts a machine for a job.
func (h *Host) start(ctx context.Context, job gitlab.Job, from *host.Process, may Permission) error {
	name, err := h.find(job.Image)
	if err != nil {
		return err
	}
	generation, release, err := h.images().Hold(ctx, name)
	if err != nil {
		return err
	}
	defer release() // again does no harm
	fault.Here("prepare: image held")
	if err := h.admit(); err != nil {
		return err
	}
	settings, err := h.imageConfig(name)
	if err != nil {
		return err
	}
	if err := h.permit(name, settings, may); err != nil {
		return err
	}
	spec, err := h.spec(name, generation, settings)
	if err != nil {
		return err
	}
	if err := h.admitLayer(spec); err != nil {
		return err
	}
	h.warnOfAge(name, generation, settings.MaxAge)
	if settings.Privileged {
		h.note("image %s is privileged: root in this job is root on the host", name)
	}
	spec.ID, spec.Owner, spec.Caller, spec.Recorded = job.ID, job.Owner, from, release
	if job.Trusted && from != nil {
		spec.CallerDir = machine.FindCallerDir(h.Env(gitlab.ResponseVariable))
	}
	spec.MaxRuntime = lifeWithoutTimeout
	if job.Timeout > 0 {
		spec.MaxRuntime = job.Timeout + lifeMargin
	}
	if limit := settings.JobTimeout; limit > 0 {
		spec.MaxRuntime = min(spec.MaxRuntime, limit)
	}
	spec.Binds = append(spec.Binds, h.helperBinds(generation.Path, from)...)
	if key := job.CacheKey(); key != "" {
		cache, letGo, err := h.caches().Hold(ctx, key)
		if err != nil {
			return fmt.Errorf("cache of project %d: %w", job.Project, err)
		}
		defer letGo() // again does no harm
		fault.Here("prepare: cache held")
		spec.Recorded = func() { release(); letGo() }
		spec.Binds = append(spec.Binds, machine.Bind{From: cache, To: gitlab.CacheDir, Writable: true})
	}
	return h.machines().Start(ctx, spec)
}

// Run is the run stage: it executes a script in the job's machine. label says which
// sub-stage of the job the script is: for people, and after [gitlab.LastScript] the job's
// log ends with what the job used.
func (h *Host) Run(ctx context.Context, stage Stage, script, label string, streams Streams) error {
	job, err := gitlab.FromEnvironment(h.Env, stage.ID, "")
	if err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	if err := limitOwnMemory(); err != nil {
		return fmt.Errorf("limit this program's memory: %w", err)
	}
	source, err := os.Open(script)
	if err != nil {
		return fmt.Errorf("script: %w", err)
	}
	defer source.Close()
	err = h.exec(ctx, job, stage.ID, machine.Script{
		Source: source, Shell: stage.Shell, Label: label,
		Stdout: streams.Out, Stderr: streams.Err,
		Alone: job.Trusted,
	})
	if err == nil && label == gitlab.LastScript {
		h.sayUsage(job)
	}
	return err
}

// sayUsage ends a job's log with what the job used.
func (h *Host) sayUsage(job gitlab.Job) {
	machines, err := h.machinesOf(job)
	if err != nil {
		return // the job is over, and was none the worse for it
	}
	record, usage, err := machines.Usage(job.ID)
	if err == nil && !record.Quiet {
		h.note("%s", usage)
	}
}

// exec executes a script and sorts out whose failure its end is.
func (h *Host) exec(ctx context.Context, job gitlab.Job, explicit string, script machine.Script) error {
	machines, err := h.machinesOf(job)
	if err != nil {
		return err
	}
	outcome, err := machines.Exec(ctx, job.ID, mayTouch(job, explicit), script)
	if err != nil {
		return err
	}
	for _, line := range outcome.Reached() {
		h.note("%s", line)
	}
	if outcome.Code == 0 {
		return nil
	}
	failure := &gitlab.BuildFailure{Code: outcome.Code}
	if outcome.Signal > 0 && outcome.OutOfMemory == nil {
		failure.Err = fmt.Errorf("the script was killed by signal %d (%s)", outcome.Signal, unix.SignalName(unix.Signal(outcome.Signal)))
	}
	return failure
}

// mayTouch allows a job its own machine. Who names a machine on the command
// line, and is not gitlab-runner, is the administrator.
func mayTouch(job gitlab.Job, explicit string) func(machine.Record) error {
	return func(r machine.Record) error {
		if r.Owner == job.Owner || explicit != "" && !job.Trusted {
			return nil
		}
		return errors.New("it belongs to another GitLab's or runner's job of the same id")
	}
}

// Cleanup is the cleanup stage: it makes the job's machine gone. It is not
// stopped by signals: ctx should not be.
func (h *Host) Cleanup(ctx context.Context, stage Stage) error {
	job, err := gitlab.FromEnvironment(h.Env, stage.ID, "")
	if err != nil {
		return err
	}
	if err := needSystemd(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	machines, err := h.machinesOf(job)
	if err != nil {
		return err
	}
	if err := machines.Stop(ctx, job.ID, mayTouch(job, stage.ID)); err != nil {
		return err
	}
	fault.Here("cleanup: machine gone")
	if h.unread != nil {
		h.note("warning: %v; the job's machine was removed all the same, caches stay as they are", h.unread)
		return nil
	}
	if err := h.pruneCaches(ctx); err != nil {
		h.note("warning: keep the caches within bounds: %v", err)
	}
	return nil
}
