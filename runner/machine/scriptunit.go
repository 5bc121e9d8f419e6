package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// scriptUnit is a script as a unit of its machine.
type scriptUnit struct {
	Store
	record Record
	bus    *systemd.Bus
	name   string
}

// stopTimeout bounds how long a script may take to stop before the whole machine is stopped.
const stopTimeout = 10 * time.Second

// run starts the unit and waits for its end. When ctx ends, or the log is broken, it stops the unit. If the
// machine does not obey, it stops the machine.
func (u scriptUnit) run(ctx context.Context, properties []systemd.Property, broken <-chan error) (systemd.Exit, error) {
	type ended struct {
		exit systemd.Exit
		err  error
	}
	done := make(chan ended, 1)
	waiting, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	go func() {
		exit, err := u.wait(waiting, properties)
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
	if end.err != nil && u.stop(context.WithoutCancel(ctx)) {
		if systemd.IsAway(end.err) {
			end.err = errNoBus
		}
		end.err = stoppedError{end.err}
	}
	return end.exit, end.err
}

// redials is how often a machine may lose its bus while a script runs. A bus of the job's own may end each
// connection at once.
const redials = 50

// wait starts the unit and waits for its end. If the job restarts its machine's D-Bus, wait connects again
// and goes on.
func (u scriptUnit) wait(ctx context.Context, properties []systemd.Property) (systemd.Exit, error) {
	exit, err := u.bus.Wait(ctx, u.name, properties)
	for tries := 0; systemd.IsAway(err) && u.record.Leader.Alive(); tries++ {
		if tries == redials {
			return exit, errNoBus
		}
		if tries > 0 { // the bus may be there before systemd is on it
			pause(ctx, redialPause)
		}
		again, dialErr := redial(ctx, u.record)
		if dialErr != nil {
			if u.record.Leader.Alive() {
				err = errNoBus
			}
			break
		}
		u.logf("connected to the bus of %s again", Name(u.record.ID))
		exit, err = again.Rejoin(ctx, u.name)
		again.Close()
		if systemd.IsNoSuchUnit(err) {
			err = errors.New("its D-Bus went away; the exit status of the script is unknown")
		}
	}
	return exit, err
}

// errNoBus is the cause if a machine lives on without a bus.
var errNoBus = failure.Because(failure.Bus, errors.New("its D-Bus went away, so the script was stopped"))

// redialLimit is how long a machine may be without a bus, redialPause how long to wait between two tries.
const (
	redialLimit = 5 * time.Second
	redialPause = 50 * time.Millisecond
)

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// redial connects again to the bus of a machine, whose connection was lost.
func redial(ctx context.Context, record Record) (*systemd.Bus, error) {
	ctx, cancel := context.WithTimeout(ctx, redialLimit)
	defer cancel()
	for {
		bus, err := systemd.Machine(ctx, *record.Leader, record.RootUID)
		if err == nil || !record.Leader.Alive() || ctx.Err() != nil {
			return bus, err
		}
		pause(ctx, redialPause)
	}
}

// stop stops the unit. If the machine does not obey, stop stops the machine, and returns true.
func (u scriptUnit) stop(ctx context.Context) (machine bool) {
	limit, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := u.bus.Stop(limit, u.name)
	if systemd.IsAway(err) && u.record.Leader.Alive() {
		if again, dialErr := redial(limit, u.record); dialErr == nil {
			err = again.Stop(limit, u.name)
			again.Close()
		}
	}
	if err == nil || !u.record.Leader.Alive() {
		return false
	}
	return u.stopMachine(ctx, u.record, err)
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
		scriptUnit{s, record, bus, unit.Name}.stop(ctx)
	}
	return nil
}
