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
	lines := append(said, d.Machines.LastWords(ctx, job, s.spec.Role)...)
	text := ""
	if len(lines) > 0 {
		text = "; its last lines:\n  " + strings.Join(lines, "\n  ")
	}
	return failure.Because(failure.Service, jobsFault(fmt.Errorf("%s: %w%s", s.label(), err, text)))
}
