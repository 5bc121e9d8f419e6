package job

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/sync/errgroup"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
)

// A service of a job is a machine beside the job's own, in its network: what listens there
// is reached on the loopback, under the names that the job gives it. When the machine has
// booted, nspawn_runner_service_start sets it up as the job's variables say, and then
// prepare waits until it can be used.

// orderServices looks for the images of a job's services, holds them, and makes the plans
// of their machines. It adds their names to the plan of the job's machine. Also with an
// error it returns those whose images are held.
func (d *Driver) orderServices(ctx context.Context, main *machine.Spec, job gitlab.Job, settings config.Config, may Permission) (all []orderedService, err error) {
	if len(job.Services) == 0 {
		return nil, nil
	}
	if most := d.Config.ServicesMax; uint64(len(job.Services)) > most {
		return nil, jobsFault(fmt.Errorf("the job has %d services, and this host starts at most %d (services_max in %s)", len(job.Services), most, d.ConfigPath()))
	}
	if main.Network == network.Host {
		return nil, jobsFault(fmt.Errorf("services are in the network of their job, and image %s has no network of its own (network: host); "+
			"jobs with services need an image with \"network: private\" or \"network: none\"", main.Image))
	}
	images := map[string]string{} // by what the job writes
	for _, s := range job.Services {
		if images[s.Name], err = d.findService(s.Name); err != nil {
			return nil, failure.Because(failure.NoImage, err)
		}
	}
	services, said := planServices(job.Services, machine.Name(job.ID))
	for _, line := range said {
		d.Note("%s", line)
	}
	main.Names = planNames(services)
	fromRegistry, err := d.pullServices(ctx, job, services, images)
	if err != nil {
		return nil, err
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
			ordered, err = d.orderProgram(*main, job, service, image, i+1, settings)
		} else {
			ordered, err = d.orderService(ctx, *main, job, service, images[service.Name], i+1, settings, may)
		}
		if ordered.spec.Recorded != nil {
			all = append(all, ordered)
		}
		if err != nil {
			return all, err
		}
	}
	if err := checkPorts(all); err != nil {
		return all, failure.Because(failure.Service, jobsFault(err))
	}
	return all, nil
}

// orderService does so for one, whose image is known by name. With an error, the image is
// held if the plan says how to let it go.
func (d *Driver) orderService(ctx context.Context, main machine.Spec, job gitlab.Job, service gitlab.Service, name string, number int, settings config.Config, may Permission) (ordered orderedService, err error) {
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
	spec, err := d.admitImage(name, generation, serviceSettings(ordered.settings, settings), may)
	if err != nil {
		return ordered, fmt.Errorf("%s: %w", ordered.label(), err)
	}
	d.place(&ordered, spec, main, job, number)
	return ordered, nil
}

// checkPorts says which services of a job listen at the same port, as far as that is known.
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

// specsOf are the plans of all machines of a job.
func specsOf(main machine.Spec, services []orderedService) []machine.Spec {
	all := []machine.Spec{main}
	for _, s := range services {
		all = append(all, s.spec)
	}
	return all
}

// startWithServices starts a job's machine and, while that boots, the machines of its services.
// It returns when they can be used, or had their time. With an error, some of them may be
// there.
func (d *Driver) startWithServices(ctx context.Context, main machine.Spec, services []orderedService) error {
	for _, s := range services {
		d.Note("Starting %s...", s.label())
	}
	main.Beside = func(ctx context.Context, leader host.Process) error { return d.startServices(ctx, leader, services) }
	if err := d.Machines.Start(ctx, main); err != nil {
		return err
	}
	_ = d.Machines.NoteStage(main.Job, "services") // for people only
	fault.Here("prepare: machines of services up")
	record, err := d.Machines.RecordOf(main.Job, machine.Main)
	if err != nil {
		return err
	}
	// From here on, their machines execute what the job may have chosen.
	if err := limitOwnMemory(); err != nil {
		return fmt.Errorf("limit this program's memory: %w", err)
	}
	endFollow := d.followServices(ctx, d.Machines, record)
	err = d.awaitServices(ctx, main.Job, *record.Leader, services)
	endFollow()
	if err != nil {
		return err
	}
	d.Machines.KnowMishaps(ctx, record)
	return nil
}

// startServices starts the machines of services in the network of a job's machine, whose first
// process is given.
func (d *Driver) startServices(ctx context.Context, main host.Process, services []orderedService) error {
	fault.Here("prepare: network of services there")
	starts, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		s.spec.Joins = &main
		starts.Go(func() error {
			if err := d.Machines.Start(ctx, s.spec); err != nil {
				return fmt.Errorf("%s: %w", s.label(), err)
			}
			return nil
		})
	}
	return starts.Wait()
}

// awaitServices waits until all services can be used. One that is late is told of in the
// job's log, or fails the job where it is required.
func (d *Driver) awaitServices(ctx context.Context, job string, main host.Process, services []orderedService) error {
	var longest time.Duration
	for _, s := range services {
		longest = max(longest, s.settings.ServiceTimeout)
	}
	d.Note("Waiting for services to be up and running (timeout %d seconds)...", int(longest.Seconds()))
	late := make([]*lateError, len(services))
	labels := make([]string, len(services))
	for i, s := range services {
		labels[i] = s.label()
	}
	wait := beginWait(d.Note, labels, longWait)
	waits, waiting := errgroup.WithContext(ctx)
	for i, s := range services {
		waits.Go(func() error {
			err := d.awaitService(waiting, job, main, s)
			what := "ready"
			if err != nil {
				what = "not ready"
			}
			wait.ready(s.label(), what)
			if errors.As(err, &late[i]) && !s.settings.ServicesRequired {
				return nil
			}
			return err
		})
	}
	err := waits.Wait()
	wait.end()
	fault.Here("prepare: services had their time")
	if err != nil {
		return err
	}
	for _, late := range late {
		if late != nil {
			d.Note("warning: %v", late)
			d.Note("The job goes on without waiting for it.")
		}
	}
	return nil
}

// lateError is that a service did not get ready in time.
type lateError struct{ error }

func (e *lateError) Unwrap() error { return e.error }

// errLate is why the wait for a service ends.
var errLate = errors.New("late")

// awaitService sets a service up and waits until it can be used. That it is late is a
// *lateError; all other errors are failures of the job's.
func (d *Driver) awaitService(ctx context.Context, job string, main host.Process, s orderedService) error {
	limit, cancel := context.WithTimeoutCause(ctx, s.settings.ServiceTimeout, errLate)
	defer cancel()
	if s.settings.ServiceStart != "" {
		said, err := d.inService(limit, job, s, startSetting, "set -e; "+s.settings.ServiceStart+"\n")
		if err != nil {
			if errors.Is(err, errLate) {
				err = fmt.Errorf("%s took longer than %s (service_timeout)", startSetting, s.settings.ServiceTimeout)
			}
			return d.whyNotReady(ctx, job, s, err, said)
		}
		d.sayWarnings(s, said)
		fault.Here("prepare: a service set up")
	}
	said, err := d.becomeReady(limit, job, main, s)
	switch {
	case errors.As(err, new(*machine.FailedError)):
		said = nil // the service itself has said more
	case err == nil:
		fault.Here("prepare: a service ready")
		return nil
	case errors.Is(err, errLate):
		late := fmt.Errorf("it is not ready after %s (service_timeout)", s.settings.ServiceTimeout)
		return &lateError{d.whyNotReady(ctx, job, s, late, said)}
	}
	return d.whyNotReady(ctx, job, s, err, said)
}

// sayWarnings puts into the job's log of what a service's script said the lines that are
// warnings.
func (d *Driver) sayWarnings(s orderedService, said []string) {
	for _, line := range said {
		if warning, is := strings.CutPrefix(line, "warning: "); is {
			d.Note("warning: %s: %s", s.label(), warning)
		}
	}
}

// becomeReady waits until a service can be used, or a unit of its machine failed: then it
// will not. said is what its command said last.
func (d *Driver) becomeReady(ctx context.Context, job string, main host.Process, s orderedService) (said []string, err error) {
	if s.spec.Program != nil {
		return d.programReady(ctx, job, main, s)
	}
	port := servicePort(s.Service)
	if s.settings.Ready == "" && port == 0 {
		return nil, d.Machines.Failed(ctx, job, s.spec.Role) // it has booted, and with it what is enabled there
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		if err := d.Machines.AwaitFailed(ctx, job, s.spec.Role); errors.As(err, new(*machine.FailedError)) {
			end(err)
		}
	}()
	if s.settings.Ready != "" {
		return d.inService(ctx, job, s, "nspawn_runner_ready", "until (\n"+s.settings.Ready+"\n); do sleep 0.05; done\n")
	}
	for !network.Answers(main, port) {
		record, err := d.Machines.RecordOf(job, s.spec.Role)
		if err != nil || record.State() != "running" {
			return nil, errors.New("its machine has ended")
		}
		select {
		case <-ctx.Done():
			return []string{fmt.Sprintf("nothing takes connections at port %d (HEALTHCHECK_TCP_PORT)", port)}, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil, nil
}

// startSetting is the script that sets a service up.
const startSetting = config.VariablePrefix + "service_start"

// mostSaid bounds what is kept of what scripts of services print, in bytes.
const mostSaid = 16 << 10

// inService executes a setting's script in the machine of a service, with the service's variables.
// Its error is that the script failed, or could not be executed; said is what it printed
// last.
func (d *Driver) inService(ctx context.Context, job string, s orderedService, setting, script string) (said []string, err error) {
	output := machine.Tail{Max: mostSaid}
	outcome, err := d.Machines.Exec(ctx, job, allowed, machine.Script{
		Role: s.spec.Role, Label: setting, Source: strings.NewReader(prologue(s.Service) + script),
		Stdout: &output, Stderr: &output,
	})
	if s.spec.Followed && setting == startSetting {
		for _, line := range output.Last() {
			d.Note("%s%s", machine.ServicePrefix(s.Aliases), line)
		}
	}
	if err == nil && outcome.Code != 0 {
		err = errors.New(strings.Join(append([]string{fmt.Sprintf("%s ended with exit code %d", setting, outcome.Code)}, outcome.Reached()...), "; "))
	}
	return output.Last(), err
}

// prologue are shell commands that set and export the variables of a service, and make the
// words of its command the arguments of a script: all in one line, unless a value has
// several. They are part of the script, since its command line has less room, and is for all
// to see in the machine.
func prologue(service gitlab.Service) string {
	var text strings.Builder
	variables := serviceEnvironment(service)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		fmt.Fprintf(&text, "export %s=%s; ", name, shellescape.Quote(variables[name]))
	}
	return text.String() + "set -- " + shellescape.QuoteCommand(service.Command) + "; "
}

// whyNotReady is a failure of the job's, with what a service said last.
func (d *Driver) whyNotReady(ctx context.Context, job string, s orderedService, err error, said []string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // another service failed, or somebody ends the job
	}
	lines := said
	if !errors.As(err, new(*machine.FailedError)) { // which says so itself
		lines = append(lines, d.Machines.Unsettled(ctx, job, s.spec.Role)...)
	}
	lines = append(lines, d.Machines.LastWords(ctx, job, s.spec.Role)...)
	text := ""
	if len(lines) > 0 {
		text = "; its last lines:\n  " + strings.Join(lines, "\n  ")
	}
	return failure.Because(failure.Service, jobsFault(fmt.Errorf("%s: %w%s", s.label(), err, text)))
}
