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

// The plan of a machine is a [machine.Spec]. The functions in this file compute it from a job, the
// settings of its image, and facts of the host. They read nothing else and change nothing.
// Driver.equip adds what the plan needs of the host; machine.Store.Start starts the machine.

const (
	// lifeWithoutTimeout is how long a machine may live if the job has no timeout.
	lifeWithoutTimeout = 24 * time.Hour
	// lifeMargin is how much longer a machine may live than the job's timeout in GitLab, which
	// does not count all stages.
	lifeMargin = 15 * time.Minute
	// trialLimit bounds the test of an image: it may hang in a build that a timer started.
	trialLimit = 30 * time.Minute
)

// facts are those of the host on which plans depend.
type facts struct {
	// memory is the host's, disk the size of the file system that machines lie on, in bytes.
	memory, disk uint64
	// tasks is how many processes and threads the host can have at a time.
	tasks uint64
	// backend makes the roots of its machines.
	backend storage.Backend
}

// plan returns the plan of a machine of a generation, for any purpose.
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

// planJob changes a plan into that of a job's main machine.
func planJob(spec machine.Spec, job gitlab.Job, settings config.Config) machine.Spec {
	spec.Job, spec.Owner, spec.Project = job.ID, job.Owner, job.Project
	spec.MaxRuntime = planLife(job, settings)
	return spec
}

// planLife returns how long a job's machine may live.
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

// planServices gives each service of a job its host names. A name belongs to the first service that
// has it; the job's machine keeps its own name. A service without any name is left out. said are
// lines for the job's log.
func planServices(wanted []gitlab.Service, own string) (services []gitlab.Service, said []string) {
	taken := map[string]string{strings.ToLower(own): "the job's machine"}
	for _, s := range wanted {
		for _, name := range s.Unfit {
			said = append(said, fmt.Sprintf("warning: service %s: %s is not a host name, so the service does not get it", printable.Line(s.Name), printable.Line(name)))
		}
		var names []string
		for _, name := range s.Aliases {
			key := strings.ToLower(name)
			if by := taken[key]; by != "" {
				said = append(said, fmt.Sprintf("warning: service %s: %s already has the name %s", printable.Line(s.Name), by, name))
				continue
			}
			taken[key] = "service " + printable.Line(s.Name)
			names = append(names, name)
		}
		if names == nil {
			said = append(said, fmt.Sprintf("warning: service %s is not started, because no name is left for it: give it an alias of its own", printable.Line(s.Name)))
			continue
		}
		s.Aliases = names
		services = append(services, s)
	}
	return services, said
}

// planNames returns the names that services add to /etc/hosts of each machine of their job. Each
// machine has localhost anyway.
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

// planService changes a plan into that of a service's machine. main is the plan of the job's machine.
func planService(spec, main machine.Spec, service gitlab.Service, number int) machine.Spec {
	spec.Job, spec.Owner, spec.Project, spec.Caller, spec.MaxRuntime = main.Job, main.Owner, main.Project, main.Caller, main.MaxRuntime
	spec.Role = machine.Role(fmt.Sprintf("service%d", number))
	spec.Service, spec.Names, spec.Aliases = printable.Line(service.Name), main.Names, service.Aliases
	spec.Network = main.Network
	return spec
}

// serviceSettings returns the settings of an image for the machine of a service. main are those of
// the image of the job's machine.
func serviceSettings(settings, main config.Config) config.Config {
	settings.MemoryMax, settings.CPUs = settings.ServiceMemoryMax, settings.ServiceCPUs
	settings.Network = main.Network
	return settings
}

// serviceEnvironment returns the variables for the scripts of a service: those that the job gives
// to it, and some that describe it.
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

// servicePort returns the TCP port in HEALTHCHECK_TCP_PORT, 0 if there is none. When it takes
// connections, the service is ready.
func servicePort(service gitlab.Service) uint16 {
	port, err := strconv.ParseUint(variableOf(service, "HEALTHCHECK_TCP_PORT"), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// variableOf returns the value of a service's variable. It ignores the case of the name, as
// gitlab-runner does.
func variableOf(service gitlab.Service, variable string) string {
	for _, name := range slices.Sorted(maps.Keys(service.Environment)) {
		if strings.EqualFold(name, variable) {
			return service.Environment[name]
		}
	}
	return ""
}

// planWait returns how long a service may take until it is ready: HEALTHCHECK_TIMEOUT of the job,
// or else service_timeout of its image. said is a line for the job's log, or "".
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

// planPorts returns the ports at which a service listens, as far as they are known. If the job gives
// a command, that may change those of the image.
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

// planTrial changes a plan into that of a machine that tests its generation.
func planTrial(spec machine.Spec) machine.Spec {
	spec.Job = ownID("test")
	spec.Owner, spec.MaxRuntime = spec.Job, trialLimit
	return spec
}

// planBuild changes a plan into that of a machine in which a playbook runs. The generation's tree
// itself is its root, and it has a network for downloads.
func planBuild(spec machine.Spec, hostname string) machine.Spec {
	spec.Job = ownID("build")
	spec.Owner, spec.MaxRuntime = spec.Job, lifeWithoutTimeout
	spec.Backend, spec.Limits.DiskMax = storage.InPlace(), 0
	spec.Hostname = hostname
	// So a task that reboots fails, and does not end the build.
	spec.Masked = []string{"reboot.target", "poweroff.target", "halt.target", "kexec.target", "soft-reboot.target"}
	if spec.Network == network.None { // network: none is meant for jobs
		spec.Network = network.Private
	}
	return spec
}

// ownID returns an id for a machine that is not for a job of GitLab, whose ids are numbers.
func ownID(what string) string { return what + "-" + strings.ToLower(rand.Text()[:8]) }
