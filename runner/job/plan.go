package job

import (
	"crypto/rand"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/printable"
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
	spec.Job, spec.Owner, spec.Project = job.ID, job.Owner, job.Project
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

// planServices gives each service of a job its host names. Those that another service has
// already, or that the job's machine has itself, are taken; a service with no name left is
// not started. said is for the job's log.
func planServices(wanted []gitlab.Service, own string) (services []gitlab.Service, said []string) {
	taken := map[string]string{strings.ToLower(own): "the job's machine"}
	for _, s := range wanted {
		for _, name := range s.Unfit {
			said = append(said, fmt.Sprintf("warning: service %s: %s is no host name, so the service is not called so", printable.Line(s.Name), printable.Line(name)))
		}
		var names []string
		for _, name := range s.Aliases {
			key := strings.ToLower(name)
			if by := taken[key]; by != "" {
				said = append(said, fmt.Sprintf("warning: service %s: %s is called %s already", printable.Line(s.Name), by, name))
				continue
			}
			taken[key] = "service " + printable.Line(s.Name)
			names = append(names, name)
		}
		if names == nil {
			said = append(said, fmt.Sprintf("warning: service %s is not started, as no name is left for it: give it an alias of its own", printable.Line(s.Name)))
			continue
		}
		s.Aliases = names
		services = append(services, s)
	}
	return services, said
}

// planNames are the lines that services add to the /etc/hosts of each machine of their job.
// localhost is everywhere already.
func planNames(services []gitlab.Service) (names []string) {
	for _, s := range services {
		for _, name := range s.Aliases {
			if !strings.EqualFold(name, "localhost") {
				names = append(names, name)
			}
		}
	}
	return names
}

// planService makes a machine's plan one for a service of a job, beside the job's machine.
func planService(spec, main machine.Spec, service gitlab.Service, number int) machine.Spec {
	spec.Job, spec.Owner, spec.Project, spec.Caller, spec.MaxRuntime = main.Job, main.Owner, main.Project, main.Caller, main.MaxRuntime
	spec.Role = machine.Role(fmt.Sprintf("service%d", number))
	spec.Service, spec.Names, spec.Aliases = printable.Line(service.Name), main.Names, service.Aliases
	spec.Network = main.Network
	return spec
}

// serviceSettings are the settings of an image whose machine is the service of a job.
func serviceSettings(settings, main config.Config) config.Config {
	settings.MemoryMax, settings.CPUs = settings.ServiceMemoryMax, settings.ServiceCPUs
	settings.Network = main.Network
	return settings
}

// serviceEnvironment are the variables that the scripts of a service see: the job's for it,
// and what the job says of it.
func serviceEnvironment(service gitlab.Service) map[string]string {
	all := maps.Clone(service.Environment)
	if all == nil {
		all = map[string]string{}
	}
	all["SERVICE_NAME"] = service.Name
	all["SERVICE_ALIASES"] = strings.Join(service.Aliases, " ")
	all["SERVICE_ENTRYPOINT"] = shellescape.QuoteCommand(service.Entrypoint)
	all["SERVICE_COMMAND"] = shellescape.QuoteCommand(service.Command)
	return all
}

// servicePort is the TCP port of a service that the job says answers when the service can be
// used, 0 if it says none.
func servicePort(service gitlab.Service) uint16 {
	port, err := strconv.ParseUint(variableOf(service, "HEALTHCHECK_TCP_PORT"), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// variableOf is the value of a service's variable, in whose name upper and lower case are the
// same, as gitlab-runner has it.
func variableOf(service gitlab.Service, variable string) string {
	for _, name := range slices.Sorted(maps.Keys(service.Environment)) {
		if strings.EqualFold(name, variable) {
			return service.Environment[name]
		}
	}
	return ""
}

// planWait is how long a service may take until it is ready, as the job says, or else its image.
// said is a line for the job's log, "" if there is none.
func planWait(service gitlab.Service, settings config.Config) (limit time.Duration, said string) {
	value := variableOf(service, "HEALTHCHECK_TIMEOUT")
	if value == "" {
		return settings.ServiceTimeout, ""
	}
	limit, err := config.ParseDuration(value)
	switch {
	case err != nil:
		return settings.ServiceTimeout, fmt.Sprintf("warning: service %s: HEALTHCHECK_TIMEOUT: want a time like 90s or 5m, not %s; it has %s", printable.Line(service.Name), printable.Line(value), settings.ServiceTimeout)
	case limit > mostWait:
		return mostWait, fmt.Sprintf("warning: service %s: HEALTHCHECK_TIMEOUT: no service may take longer than %s", printable.Line(service.Name), mostWait)
	}
	return limit, ""
}

// mostWait bounds how long a job may wait for its services.
const mostWait = time.Hour

// planPorts are the ports at which a service listens, none if it is not known. Its command may
// change those of its image.
func planPorts(service gitlab.Service, settings config.Config) []uint16 {
	if port := servicePort(service); port != 0 {
		return []uint16{port}
	}
	if service.Command != nil || service.Entrypoint != nil {
		return nil
	}
	ports := slices.Clone(settings.ServicePorts)
	slices.Sort(ports)
	return slices.Compact(ports)
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
