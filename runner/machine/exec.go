package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// stopTimeout bounds how long a script may take to stop before the whole machine is stopped.
const stopTimeout = 10 * time.Second

// Outcome is how a script ended.
type Outcome struct {
	// Code is its exit code, 128+n if signal n killed it.
	Code int
	// Signal is the signal that killed it, or 0.
	Signal int
	// OutOfMemory is set if the kernel killed processes of the machine for lack of memory while the
	// script ran.
	OutOfMemory *limits.OutOfMemory
	// OutOfTasks and DiskFull are set if the script failed and the machine had reached that limit.
	OutOfTasks *limits.OutOfTasks
	DiskFull   *limits.DiskFull
}

// Reached returns a line for each limit of its machine that the script reached.
func (o Outcome) Reached() (lines []string) {
	if o.OutOfMemory != nil {
		lines = append(lines, o.OutOfMemory.String())
	}
	if o.OutOfTasks != nil {
		lines = append(lines, o.OutOfTasks.String())
	}
	if o.DiskFull != nil {
		lines = append(lines, o.DiskFull.String())
	}
	return lines
}

// Exec executes a script in a job's machine, and waits until all its processes have ended. An error means
// that it is not known how the script ended: the machine is to blame. When ctx ends, the script and all
// its descendants are stopped.
//
// may is called with the machine's record before anything is touched.
func (s Store) Exec(ctx context.Context, job string, may func(Record) error, script Script) (Outcome, error) {
	record, err := s.RecordOf(job, cmp.Or(script.Role, Main))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Outcome{}, fmt.Errorf("machine %s: there is none: was it prepared?", Name(Spec{Job: job, Role: script.Role}.id()))
	case err != nil:
		return Outcome{}, err
	case record.Leader == nil:
		return Outcome{}, fmt.Errorf("machine %s: it has not come up", Name(record.ID))
	}
	if err := may(record); err != nil {
		return Outcome{}, fmt.Errorf("machine %s: %w", Name(record.ID), err)
	}
	if record.Program != nil {
		return Outcome{}, fmt.Errorf("machine %s: %w", Name(record.ID), errNoInit)
	}
	if record.Role == Main {
		_ = s.NoteStage(job, cmp.Or(script.Label, "script")) // for people only
	}
	script.Shell = cmp.Or(script.Shell, record.Shell, "/bin/bash")
	script.environment = record.Environment
	outcome, err := s.exec(ctx, record, script)
	if systemd.Holding() {
		s.stopMachine(context.WithoutCancel(ctx), record, systemd.ErrPassed)
		err = stoppedError{cmp.Or(err, systemd.ErrPassed)}
	}
	if err != nil {
		if ctx.Err() != nil {
			return outcome, context.Cause(ctx)
		}
		return outcome, s.whyDead(context.WithoutCancel(ctx), record, err)
	}
	return outcome, nil
}

// exec executes a script. The outcome says which limits its machine reached meanwhile.
func (s Store) exec(ctx context.Context, record Record, script Script) (Outcome, error) {
	body, err := sealed(withFarewell(script.Source, script.Shell))
	if err != nil {
		return Outcome{}, fmt.Errorf("read the script: %w", err)
	}
	defer body.Close()
	fault.Here("run: script read")
	output, err := newStreams(script.Stdout, script.Stderr, record.RootUID)
	if err != nil {
		return Outcome{}, err
	}
	defer output.close()

	bus, err := systemd.Machine(ctx, *record.Leader, record.RootUID)
	if err != nil {
		return Outcome{}, err
	}
	defer bus.Close()
	fault.Here("run: connected")
	s.logf("connected to the bus of %s", Name(record.ID))
	if script.Alone {
		if err := s.stopEarlier(ctx, bus, record); err != nil {
			return Outcome{}, err
		}
	}
	unit := unitPrefix + strings.ToLower(rand.Text()[:10]) + ".service"
	properties := s.scriptProperties(script, body, output)
	fault.Here("run: nothing else runs")
	watch := limits.Begin(record.Cgroup)
	defer watch.Close()
	output.start()
	exit, err := s.execUnit(ctx, bus, unit, properties, record, output.broken)
	fault.Here("run: script at its end")
	if finishErr := output.finish(); finishErr != nil && err == nil {
		err = fmt.Errorf("write the job's log: %w", finishErr)
	}
	if err == nil {
		err = body.checkExecuted(exit, script.Shell)
	}
	if err != nil {
		return Outcome{}, err
	}
	s.logf("the script has ended: status %d, signal %d", exit.Status, exit.Signal)
	return s.outcome(ctx, record, exit, watch), nil
}

// execUnit executes a script as a unit of the machine and waits for its end. When ctx ends, or the log is
// broken, it stops the unit. If the machine does not obey, it stops the machine.
func (s Store) execUnit(ctx context.Context, bus *systemd.Bus, unit string, properties []systemd.Property, record Record, broken <-chan error) (systemd.Exit, error) {
	type ended struct {
		exit systemd.Exit
		err  error
	}
	done := make(chan ended, 1)
	waiting, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	go func() {
		exit, err := s.wait(waiting, bus, unit, properties, record)
		done <- ended{exit, err}
	}()
	// giveUp ends the wait first, so that no request to start the script can follow the request to
	// stop it.
	giveUp := func(err error) ended {
		abandon()
		<-done
		return ended{err: err}
	}
	var end ended
	select {
	case end = <-done:
	case <-ctx.Done():
		end = giveUp(context.Cause(ctx))
	case err := <-broken:
		// Without a reader of the log, the result of the script does not matter.
		end = giveUp(fmt.Errorf("write the job's log: %w", err))
	}
	fault.Here("run: no more waiting")
	if end.err != nil && s.stopScript(context.WithoutCancel(ctx), bus, unit, record) {
		if errors.Is(end.err, systemd.ErrGone) {
			end.err = errNoBus
		}
		end.err = stoppedError{end.err}
	}
	return end.exit, end.err
}

// outcome returns how a script ended that was executed.
func (s Store) outcome(ctx context.Context, record Record, exit systemd.Exit, watch *limits.Watch) Outcome {
	outcome := Outcome{Code: exit.Status, Signal: exit.Signal}
	if outcome.Signal > 0 {
		outcome.Code = 128 + outcome.Signal
	}
	outcome.OutOfMemory, outcome.OutOfTasks = watch.Shortages(record.Image, outcome.Code != 0)
	if outcome.OutOfMemory != nil {
		outcome.OutOfMemory.Service = record.Service != ""
	}
	if outcome.Code != 0 {
		outcome.DiskFull = diskFull(ctx, s.dir(record.ID), record)
	}
	return outcome
}

// redials is how often a machine may lose its bus while a script runs. A bus of the job's own may end each
// connection at once.
const redials = 50

// wait starts a script and waits for its end. If the job restarts its machine's D-Bus, wait connects again
// and goes on.
func (s Store) wait(ctx context.Context, bus *systemd.Bus, unit string, properties []systemd.Property, record Record) (systemd.Exit, error) {
	exit, err := bus.Wait(ctx, unit, properties)
	for tries := 0; errors.Is(err, systemd.ErrGone) && record.Leader.Alive(); tries++ {
		if tries == redials {
			return exit, errNoBus
		}
		again, dialErr := redial(ctx, record)
		if dialErr != nil {
			if record.Leader.Alive() {
				err = errNoBus
			}
			break
		}
		s.logf("connected to the bus of %s again", Name(record.ID))
		exit, err = again.Rejoin(ctx, unit)
		again.Close()
		if systemd.IsNoSuchUnit(err) {
			err = errors.New("its D-Bus went away; the exit status of the script is unknown")
		}
	}
	return exit, err
}

// errNoBus is the cause if a machine lives on without a bus.
var errNoBus = failure.Because(failure.Bus, errors.New("its D-Bus went away, so the script was stopped"))

// redialLimit is how long a machine may be without a bus.
const redialLimit = 5 * time.Second

// redial connects again to the bus of a machine, whose connection was lost.
func redial(ctx context.Context, record Record) (*systemd.Bus, error) {
	ctx, cancel := context.WithTimeout(ctx, redialLimit)
	defer cancel()
	for {
		bus, err := systemd.Machine(ctx, *record.Leader, record.RootUID)
		if err == nil || !record.Leader.Alive() || ctx.Err() != nil {
			return bus, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// stopScript stops a script's unit. If the machine does not obey, it stops the machine, and returns true.
func (s Store) stopScript(ctx context.Context, bus *systemd.Bus, unit string, record Record) (machine bool) {
	limit, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := bus.Stop(limit, unit)
	if errors.Is(err, systemd.ErrGone) && record.Leader.Alive() {
		if again, dialErr := redial(limit, record); dialErr == nil {
			err = again.Stop(limit, unit)
			again.Close()
		}
	}
	if err == nil || !record.Leader.Alive() {
		return false
	}
	return s.stopMachine(ctx, record, err)
}

// stopMachine stops a machine that does not obey. It returns false if it cannot connect to the host's bus.
func (s Store) stopMachine(ctx context.Context, record Record, why error) bool {
	s.logf("stop %s, which does not obey: %s", Name(record.ID), printable.Line(why.Error()))
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	host, err := systemd.Host(ctx)
	if err != nil {
		return false
	}
	defer host.Close()
	unit := unitName(record.ID)
	err = record.withoutFUSE(func() error { return stopService(ctx, host, unit, record, emptyLimit) })
	if err != nil {
		s.logf("stop %s: %v", unit, err)
	}
	return true
}

// stopEarlier stops the scripts that still run in a machine.
func (s Store) stopEarlier(ctx context.Context, bus *systemd.Bus, record Record) error {
	units, err := bus.RunningUnits(ctx, unitPrefix+"*.service")
	if err != nil {
		return err
	}
	for _, unit := range units {
		s.logf("stop %s, which an earlier call left running", printable.Line(unit.Name))
		s.stopScript(ctx, bus, unit.Name, record)
	}
	return nil
}
