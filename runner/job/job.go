// Package job does what gitlab-runner asks of a driver: it gives each job a machine of
// its own, executes the job's scripts in it, and removes it.
//
//	stages.go      prepare, run, cleanup
//	try.go         the three in one go, for a person
//	names.go       which image a job means
//	permission.go  which images a job may have
//	admission.go   when the host takes no job
//	services.go    the services of a job
//	mishaps.go     what happens to services while their job runs
//	ociservices.go services that are images of registries
//	longwait.go    a section of the log about services that take long
//	servicenames.go which image a service means
//	plan.go        what a machine shall be: computed, before anything is touched
//	settings.go    the settings of an image
//	equip.go       what the host must have for that
//	age.go         a warning of an image that is old
//	observe.go     what stages count and write to the journal
//	result.go      how jobs end
//	counters.go    where it is counted
//	crowd.go       a word to the administrator when many machines boot slowly
//	caller.go      the gitlab-runner that calls
//	helper.go      its program inside the machine
//	trial.go       a machine that tests a generation before it is published
//	booted.go      a machine for a playbook
//	caches.go      the caches of jobs, kept within bounds
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
	// ConfigFile is where the configuration was read, "" for the usual place. Unread is why
	// it, or a part of it, could not be read: see the stages that come after prepare.
	ConfigFile string
	Unread     error

	Images   *image.Store
	Machines machine.Store
	Caches   cache.Store
	// OCI are the images of registries.
	OCI *oci.Store

	// Env is the environment: os.Getenv.
	Env gitlab.Env
	// Program is the path by which gitlab-runner and systemd call this program.
	Program string
	// Note tells a line for people.
	Note func(format string, args ...any)

	untested sync.Once // noted that new generations are not tested
}

// NeedHost is asked before machines are started.
func (d *Driver) NeedHost() error {
	if err := host.NeedSystemd(); err != nil {
		return err
	}
	return statedir.Make(d.Config.StateDir)
}

// machinesOf are the machines of the state directory in which a job's machine was
// started: the configuration may have named another one then. By hand it is the one that
// the configuration names, as long as it does. That nothing names one is an error: there
// may be a machine all the same.
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

// end makes the machines of a job of ours gone, also if ctx is over.
func (d *Driver) end(ctx context.Context, id string) error {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), CleanupTimeout)
	defer cancel()
	return d.Machines.Stop(ending, id, allowed)
}

// allowed is for who made the machine.
func allowed(machine.Record) error { return nil }

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
