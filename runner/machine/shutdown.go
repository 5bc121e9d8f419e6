package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// shutdownLimit is how long a machine may take to shut down. systemd kills most services that do not stop
// within 90 s (DefaultTimeoutStopSec=), and the witness reports that.
const shutdownLimit = 2 * time.Minute

// ending is the unit that ends the service manager of a container, and with it the machine. Other units, such
// as poweroff.target, may be masked: see Spec.
const ending = "exit.target"

// Shutdown shuts a job's main machine down, as a Debian that is turned off, and then removes it. The error
// says which services did not stop by themselves: their files on the disk may be incomplete.
func (s Store) Shutdown(ctx context.Context, job string) error {
	found, err := s.RecordOf(job, Main)
	if err != nil {
		return err
	}
	id := found.ID
	lock, err := s.lock(ctx, id, false)
	if err != nil {
		return fmt.Errorf("machine %s: %w", Name(id), err)
	}
	defer lock.Close()
	record, err := readRecord(s.dir(id))
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, shutdownLimit, errHangs)
	defer cancel()
	if err = s.shutdown(limit, record); err != nil {
		err = fmt.Errorf("shut machine %s down: %w", Name(id), err)
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return errors.Join(err, s.removeAtLast(undo, id))
}

var errHangs = fmt.Errorf("it takes longer than %s", shutdownLimit)

func (s Store) shutdown(ctx context.Context, record Record) error {
	if !record.up() {
		return errors.New("it has ended already")
	}
	bus, err := systemd.Host(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	inside, err := systemd.Machine(ctx, *record.Leader, record.RootUID)
	if err != nil {
		return err
	}
	defer inside.Close()
	w, err := callWitness(ctx, inside)
	if err != nil {
		return err
	}
	defer w.Close()
	fault.Here("machine: about to shut down")
	s.logf("shut %s down", Name(record.ID))
	if err := inside.StartIrreversibly(ctx, ending); err != nil {
		return err
	}
	_, result, err := bus.AwaitStopped(ctx, unitName(record.ID))
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errHangs):
		return fmt.Errorf("%w: %s", errHangs, strings.Join(record.running(), ", "))
	case err != nil:
		return err
	case result != "success":
		return fmt.Errorf("its service ended as %q", result)
	}
	fault.Here("machine: shut down")
	if killed := w.killed(); len(killed) > 0 {
		return fmt.Errorf("systemd killed what did not stop by itself: %s", strings.Join(killed, ", "))
	}
	return nil
}

// running returns the names of units that have processes. It looks at the control groups, because the bus may
// have stopped already.
func (r Record) running() (units []string) {
	top := r.payload()
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if name := filepath.Base(path); len(procs) > 0 && name != "init.scope" {
			units = append(units, printable.Line(name))
		}
		return nil
	})
	slices.Sort(units)
	return slices.Compact(units)
}
