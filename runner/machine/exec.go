package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/systemd"
)

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
	unit := scriptUnit{Store: s, record: record, bus: bus, name: unitPrefix + strings.ToLower(rand.Text()[:10]) + ".service"}
	properties := s.scriptProperties(script, body, output)
	fault.Here("run: nothing else runs")
	watch := limits.Begin(record.Cgroup)
	defer watch.Close()
	output.start()
	exit, err := unit.run(ctx, properties, output.broken)
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
