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

// startWithServices starts a job's machine and, while that boots, the machines of its services. It
// returns when the services are ready, or their time is over. After an error, nothing is left of the
// machines.
func (d *Driver) startWithServices(ctx context.Context, main machine.Spec, services []orderedService) error {
	begun, recorded := false, main.Recorded
	main.Recorded = func() {
		begun = true
		recorded()
	}
	err := d.startAll(ctx, main, services)
	if err != nil && begun { // before, a machine with this id is not this job's
		err = errors.Join(err, d.end(ctx, main.Job, main.Owner))
	}
	return err
}

// startAll is startWithServices. After an error, some of the machines may exist.
func (d *Driver) startAll(ctx context.Context, main machine.Spec, services []orderedService) error {
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
	// From here on, this process talks to machines that a job controls.
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

// startServices starts the machines of services in the network of a job's machine. main is its first
// process.
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

// awaitServices waits until all services are ready. A service that is late gets a warning in the job's
// log, or fails the job if services are required (services_required).
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

// lateError is the error of a service that was not ready in time.
type lateError struct{ error }

func (e *lateError) Unwrap() error { return e.error }

// errLate is the cause of a context whose service is late.
var errLate = errors.New("late")

// awaitService sets a service up and waits until it is ready. If the service is late, the error is a
// *lateError. All other errors are the job's failure.
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

// sayWarnings writes the warnings in the output of a service's script to the job's log.
func (d *Driver) sayWarnings(s orderedService, said []string) {
	for _, line := range said {
		if warning, is := strings.CutPrefix(line, "warning: "); is {
			d.Note("warning: %s: %s", s.label(), warning)
		}
	}
}

// becomeReady waits until a service is ready, or a unit of its machine has failed. said is the last
// output of its readiness command.
func (d *Driver) becomeReady(ctx context.Context, job string, main host.Process, s orderedService) (said []string, err error) {
	if s.spec.Program != nil {
		return d.programReady(ctx, job, main, s)
	}
	port := servicePort(s.Service)
	if s.settings.Ready == "" && port == 0 {
		return nil, d.Machines.Failed(ctx, job, s.spec.Role) // the boot has started its enabled units
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

// mostSaid bounds the output of a service's script that is kept, in bytes.
const mostSaid = 16 << 10

// inService executes the script of a setting in the machine of a service, with the service's
// variables. It returns an error if the script fails or cannot be executed. said are the last lines of
// its output.
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

// prologue returns shell commands that export the variables of a service, and make the words of its
// command the arguments of the script. They are on one line, unless a value has several. They are part
// of the script, because a command line has less room, and every user of the machine can read it.
func prologue(service gitlab.Service) string {
	var text strings.Builder
	variables := serviceEnvironment(service)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		fmt.Fprintf(&text, "export %s=%s; ", name, shellescape.Quote(variables[name]))
	}
	return text.String() + "set -- " + shellescape.QuoteCommand(service.Command) + "; "
}

// whyNotReady returns a failure of the job, with the last lines of a service.
func (d *Driver) whyNotReady(ctx context.Context, job string, s orderedService, err error, said []string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // another service failed, or the job was cancelled
	}
	lines := said
	if !errors.As(err, new(*machine.FailedError)) { // a FailedError names the units itself
		lines = append(lines, d.Machines.Unsettled(ctx, job, s.spec.Role)...)
	}
	lines = append(lines, d.Machines.LastWords(ctx, job, s.spec.Role)...)
	text := ""
	if len(lines) > 0 {
		text = "; its last lines:\n  " + strings.Join(lines, "\n  ")
	}
	return failure.Because(failure.Service, jobsFault(fmt.Errorf("%s: %w%s", s.label(), err, text)))
}
