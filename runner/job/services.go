package job

import (
	"context"
	"fmt"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
)

// A service of a job is a machine of its own, in the network of the job's machine. So the job reaches
// its ports on the loopback, under the names that the job gives it. When the machine has booted,
// nspawn_runner_service_start sets it up with the variables of the job. Then prepare waits until the
// service is ready.

// orderServices finds the images of a job's services, holds them, and plans their machines. names
// are the host names that the services add to all machines of the job. With an error, it also
// returns the services whose images it holds.
func (d *Driver) orderServices(ctx context.Context, of ordering) (all []orderedService, names []string, err error) {
	job := of.job
	if len(job.Services) == 0 {
		return nil, nil, nil
	}
	if most := d.Config.ServicesMax; uint64(len(job.Services)) > most {
		return nil, nil, jobsFault(fmt.Errorf("the job has %d services, and this host starts at most %d (services_max in %s)", len(job.Services), most, d.ConfigPath()))
	}
	if of.main.Network == network.Host {
		return nil, nil, jobsFault(fmt.Errorf("services are in the network of their job, and image %s has no network of its own (network: host); "+
			"jobs with services need an image with \"network: private\" or \"network: none\"", of.main.Image))
	}
	images := map[string]string{} // by what the job writes
	for _, s := range job.Services {
		if images[s.Name], err = d.findService(s.Name); err != nil {
			return nil, nil, failure.Because(failure.NoImage, err)
		}
	}
	services, said := planServices(job.Services, machine.Name(job.ID))
	for _, line := range said {
		d.Note("%s", line)
	}
	names = planNames(services)
	of.main.Names = names
	fromRegistry, err := d.pullServices(ctx, job, services, images)
	if err != nil {
		return nil, names, err
	}
	for _, image := range fromRegistry {
		defer func() {
			if err != nil {
				image.release()
			}
		}()
	}
	for i, service := range services {
		var ordered orderedService
		if image, is := fromRegistry[i]; is {
			ordered, err = d.orderProgram(of, service, i+1, image)
		} else {
			ordered, err = d.orderService(ctx, of, service, i+1, images[service.Name])
		}
		if ordered.spec.Recorded != nil {
			all = append(all, ordered)
		}
		if err != nil {
			return all, names, err
		}
	}
	if err := checkPorts(all); err != nil {
		return all, names, failure.Because(failure.Service, jobsFault(err))
	}
	return all, names, nil
}

// orderService holds the image of a service, which this host has under a name, and plans its
// machine. It holds the image, also with an error, if the plan has a Recorded.
func (d *Driver) orderService(ctx context.Context, of ordering, service gitlab.Service, number int, name string) (ordered orderedService, err error) {
	ordered.Service = service
	generation, release, err := d.Images.Hold(ctx, name)
	if err != nil {
		return ordered, failure.Because(failure.NoImage, fmt.Errorf("%s: %w", ordered.label(), err))
	}
	ordered.spec.Recorded = release
	fault.Here("prepare: image of a service held")
	if ordered.settings, err = d.Settings(name); err != nil {
		return ordered, err
	}
	spec, err := d.admitImage(name, generation, serviceSettings(ordered.settings, of.settings), of.may)
	if err != nil {
		return ordered, fmt.Errorf("%s: %w", ordered.label(), err)
	}
	d.place(&ordered, spec, of, number)
	return ordered, nil
}

// checkPorts returns an error if two services of a job are known to listen at the same port.
func checkPorts(services []orderedService) error {
	by := map[uint16]orderedService{}
	for _, s := range services {
		for _, port := range planPorts(s.Service, s.settings) {
			if first, taken := by[port]; taken {
				return fmt.Errorf("%s and %s both listen at port %d, and all services of a job share one network: "+
					"give one of them another port by its command, as in command: [\"-p\", \"5433\"] of PostgreSQL, "+
					"or by a variable of its image, and write the port to its variable HEALTHCHECK_TCP_PORT", first.label(), s.label(), port)
			}
			by[port] = s
		}
	}
	return nil
}

// specsOf returns the plans of all machines of a job.
func specsOf(main machine.Spec, services []orderedService) []machine.Spec {
	all := []machine.Spec{main}
	for _, s := range services {
		all = append(all, s.spec)
	}
	return all
}
