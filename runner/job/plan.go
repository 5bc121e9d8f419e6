package job

import (
	"crypto/rand"
	"math"
	"strings"
	"time"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// A machine's plan is a [machine.Spec]: the functions here compute it of a job, of its
// image's settings and of facts of the host. They look at nothing else and touch nothing.
// What the plan asks of the host, equip adds, and machine.Store.Start launches it.

const (
	// lifeWithoutTimeout is how long a machine may live if the job has no timeout.
	lifeWithoutTimeout = 24 * time.Hour
	// lifeMargin is what a job's machine may live longer than GitLab lets the
	// job run: for the stages around the script.
	lifeMargin = 15 * time.Minute
	// trialLimit bounds an image's own test, which nobody may be watching.
	trialLimit = 30 * time.Minute
)

// facts are what of the host decides what its machines are like.
type facts struct {
	// memory is the host's, disk the size of the file system that machines lie on, in bytes.
	memory, disk uint64
	// tasks is how many processes and threads the host can have.
	tasks uint64
	// backend is what its machines' roots are made with.
	backend storage.Backend
}

// plan is a machine of a generation, whoever it is for.
func plan(name string, generation image.Generation, settings config.Config, host facts) machine.Spec {
	return machine.Spec{
		Image:       name,
		Generation:  generation.Name,
		Chroot:      generation.Path,
		Backend:     host.backend,
		Privileged:  settings.Privileged,
		BootTimeout: settings.BootTimeout,
		Limits: machine.Limits{
			MemoryMax:     settings.MemoryMax.Bytes(host.memory),
			MemorySwapMax: settings.MemorySwapMax.Bytes(host.memory),
			CPUQuota:      settings.CPUs,
			CPUWeight:     settings.CPUWeight,
			IOWeight:      settings.IOWeight,
			TasksMax:      settings.TasksMax.Bytes(host.tasks),
			OpenFiles:     settings.OpenFiles,
			DiskMax:       planDisk(settings, host),
		},
		Together: machine.Together{
			MemoryMax: settings.MachinesMemoryMax.Bytes(host.memory),
			TasksMax:  settings.MachinesTasksMax.Bytes(host.tasks),
		},
		Shell: settings.Shell,
		Quiet: !settings.Usage,

		CloudMetadata: settings.CloudMetadata,
		NoFUSE:        !settings.FUSE,
		Environment:   settings.JobEnvironment,
		NoNesting:     !settings.Nesting,
	}
}

// planDisk is how many bytes a machine may write to its root, 0 for no limit.
func planDisk(settings config.Config, host facts) uint64 {
	whole := host.disk
	if host.backend.Traits().InMemory {
		whole = host.memory
	}
	limit := settings.DiskMax.Bytes(whole)
	if limit == math.MaxUint64 {
		return 0
	}
	return limit
}

// planJob makes a machine's plan one for a job.
func planJob(spec machine.Spec, job gitlab.Job, settings config.Config) machine.Spec {
	spec.Job, spec.Owner = job.ID, job.Owner
	spec.MaxRuntime = planLife(job, settings)
	return spec
}

// planLife is how long a job's machine may live.
func planLife(job gitlab.Job, settings config.Config) time.Duration {
	life := lifeWithoutTimeout
	if job.Timeout > 0 {
		life = job.Timeout + lifeMargin
	}
	if limit := settings.JobTimeout; limit > 0 {
		life = min(life, limit)
	}
	return life
}

// planTrial makes a machine's plan one that tests its generation.
func planTrial(spec machine.Spec) machine.Spec {
	spec.Job = ownID("test")
	spec.Owner, spec.MaxRuntime = spec.Job, trialLimit
	return spec
}

// planBuild makes a machine's plan one for a playbook: the generation's tree itself is its
// root, and packages are fetched through its network.
func planBuild(spec machine.Spec, hostname string) machine.Spec {
	spec.Job = ownID("build")
	spec.Owner, spec.MaxRuntime = spec.Job, lifeWithoutTimeout
	spec.Backend, spec.Limits.DiskMax = storage.InPlace(), 0
	spec.Hostname = hostname
	// A playbook that reboots what it builds is refused, and does not end it.
	spec.Masked = []string{"reboot.target", "poweroff.target", "halt.target", "kexec.target", "soft-reboot.target"}
	if spec.Network == network.None { // that is for jobs
		spec.Network = network.Private
	}
	return spec
}

// ownID is an id for a machine that is no job's: GitLab's ids are numbers.
func ownID(what string) string { return what + "-" + strings.ToLower(rand.Text()[:8]) }
