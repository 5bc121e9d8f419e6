// Package job does what gitlab-runner asks of a driver: it gives each job a machine of
// its own, executes the job's scripts in it, and removes it.
//
// The stages, and what they have in common:
//
//	stages.go         prepare, run, cleanup
//	try.go            the three in one call, for a person
//	observe.go        what stages count, and write to the journal
//	result.go         how jobs end
//	counters.go       the counters of a state directory
//	crowd.go          a warning when many machines boot slowly
//	caller.go         the gitlab-runner that calls
//	memory.go         a limit for this program while it talks to machines
//
// Images and their settings:
//
//	names.go          which image a job means
//	servicenames.go   which image a service means
//	playbooks.go      one setting of all playbooks
//	settings.go       all settings of one image
//	permission.go     which images a job may have
//	registries.go     the job's credentials for registries
//	age.go            a warning about old images
//
// Machines:
//
//	admission.go      when the host refuses a job
//	plan.go           computes what a machine shall be
//	equip.go          what the host must have for a plan
//	helper.go         gitlab-runner's program in the machine
//	caches.go         the caches of jobs, and their limits
//	trial.go          a machine that tests a generation before it is published
//	booted.go         a machine in which a playbook runs
//
// Services:
//
//	services.go       finds the images of services, and plans their machines
//	ordered.go        a service that has a plan
//	ociservices.go    services that are images of registries
//	awaitservices.go  starts services, and waits until they are ready
//	longwait.go       a section of the log about services that take long
//	mishaps.go        tells the job what happened to its services
package job

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"nspawn-runner/runner/cache"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/oci"
	"nspawn-runner/runner/statedir"
)

// Driver runs jobs on this host.
type Driver struct {
	Config config.Config
	// ConfigFile is the file of the configuration, "" for the usual one. Unread is why the
	// configuration, or a part of it, could not be read. The stages after prepare work without.
	ConfigFile string
	Unread     error

	Images   *image.Store
	Machines machine.Store
	Caches   cache.Store
	// OCI are the images of registries.
	OCI *oci.Store

	// Env returns variables of the environment, as os.Getenv does.
	Env gitlab.Env
	// Program is the path by which gitlab-runner and systemd call this program.
	Program string
	// Note writes a line for people.
	Note func(format string, args ...any)

	untested sync.Once // says once that new generations are not tested
}

// NeedHost returns an error if this host cannot start machines.
func (d *Driver) NeedHost() error {
	if err := host.NeedSystemd(); err != nil {
		return err
	}
	return statedir.Make(d.Config.StateDir)
}

// machinesOf returns the machines of the state directory in which the job's machine was started.
// The configuration may have named another directory then. For a stage that a person calls, the
// directory is that of the configuration, if the configuration can be read. If it cannot, and no
// machine is found, the error is Unread: there may be a machine all the same.
func (d *Driver) machinesOf(job gitlab.Job) (machine.Store, error) {
	dir, found := machine.Find(job.ID)
	if !found || !job.Trusted && d.Unread == nil {
		return d.Machines, d.Unread
	}
	there := d.Machines
	there.Dir = filepath.Dir(dir)
	there.Trash = filepath.Join(filepath.Dir(there.Dir), statedir.Trash)
	return there, nil
}

// CleanupTimeout bounds the whole of cleanup.
const CleanupTimeout = 100 * time.Second

// end removes the machines of a job, also if ctx has ended. It leaves machines of another owner alone, whose
// job may have the same id.
func (d *Driver) end(ctx context.Context, id, owner string) error {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), CleanupTimeout)
	defer cancel()
	return d.Machines.Stop(ending, id, mayTouch(gitlab.Job{Owner: owner}, ""))
}

// allowed permits everything with a machine: for the process that started it.
func allowed(machine.Record) error { return nil }

// mayTouch permits a job to use its own machine. explicit is the id on the command line. Without
// gitlab-runner, it comes from the administrator, who may use any machine.
func mayTouch(job gitlab.Job, explicit string) func(machine.Record) error {
	return func(r machine.Record) error {
		if r.Owner == job.Owner || explicit != "" && !job.Trusted {
			return nil
		}
		return errors.New("it belongs to another GitLab's or runner's job of the same id")
	}
}
