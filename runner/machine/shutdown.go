package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/systemd"
)

// ShutdownLimit is how long a machine may take to shut down. systemd kills most of what
// does not stop after 90 s (DefaultTimeoutStopSec=), and then the witness tells of it.
const ShutdownLimit = 2 * time.Minute

// ending is the unit that ends the service manager of a container, and with it the
// machine. Others, such as poweroff.target, may be masked: see Spec.
const ending = "exit.target"

// Shutdown makes a machine gone as Stop does, after it has stopped its services itself,
// as any Debian that is turned off. The error says what did not stop, or was killed for
// it: what that left on the disk may be half of something.
func (s Store) Shutdown(ctx context.Context, id string) error {
	lock, err := s.lock(ctx, id, false)
	if err != nil {
		return fmt.Errorf("machine %s: %w", Name(id), err)
	}
	defer lock.Close()
	record, err := readRecord(s.dir(id))
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, ShutdownLimit, errHangs)
	defer cancel()
	if err = s.shutdown(limit, record); err != nil {
		err = fmt.Errorf("shut machine %s down: %w", Name(id), err)
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return errors.Join(err, s.removeAtLast(undo, id))
}

var errHangs = fmt.Errorf("it takes longer than %s", ShutdownLimit)

func (s Store) shutdown(ctx context.Context, record Record) error {
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
	if err := inside.Leave(ctx, ending); err != nil {
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

// running names the units of which something runs in a machine. It asks the control
// groups, since there may be no bus any more.
func (r Record) running() (units []string) {
	top := r.payload()
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if name := filepath.Base(path); len(procs) > 0 && name != "init.scope" {
			units = append(units, Printable(name))
		}
		return nil
	})
	slices.Sort(units)
	return slices.Compact(units)
}

// witness is a unit of ours in a machine that is about to shut down. It stops when all
// ordinary services have stopped, and then notes how they did. Nobody could tell later:
// the bus goes before, and the journal lies in memory.
type witness struct{ notes *os.File }

const (
	// testimony prints the state of all units, as ExecStart and as ExecStop.
	testimony = "systemctl show --no-pager --property=Id --property=Result '*'; echo =="
	// witnessLimit is how long that may take.
	witnessLimit = 20 * time.Second
)

// callWitness starts the witness.
func callWitness(ctx context.Context, bus *systemd.Bus) (*witness, error) {
	fd, err := unix.MemfdCreate("witness", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	w := &witness{os.NewFile(uintptr(fd), "witness")}
	if err := w.start(ctx, bus); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *witness) start(ctx context.Context, bus *systemd.Bus) error {
	set := systemd.Set
	result, err := bus.Start(ctx, "nspawn-runner-witness.service", []systemd.Property{
		set("Description", "Note how services stop"),
		set("Type", "oneshot"),
		set("RemainAfterExit", true),
		systemd.ExecStart("/bin/sh", "-c", testimony),
		systemd.ExecStop("/bin/sh", "-c", testimony),
		set("TimeoutStopUSec", uint64(witnessLimit/time.Microsecond)),
		set("StandardOutputFileDescriptor", dbus.UnixFD(w.notes.Fd())),
		// Services are ordered after these two, so they stop before this one does.
		set("DefaultDependencies", false),
		set("Before", []string{"sysinit.target", "basic.target", "shutdown.target"}),
		set("Conflicts", []string{"shutdown.target"}),
	})
	if err == nil && result != "done" {
		err = fmt.Errorf("a unit that notes how services stop did not start: %s", Printable(result))
	}
	return err
}

// Close forgets what the witness noted.
func (w *witness) Close() error { return w.notes.Close() }

// bad are the results of a unit that systemd or the kernel had to kill: systemd.exec(5),
// $SERVICE_RESULT. Who exits with a status of its own, or crashes when it is told to end,
// does so on each Debian machine.
var bad = []string{"timeout", "watchdog", "oom-kill"}

// killed lists which units were killed since the witness started.
func (w *witness) killed() (units []string) {
	notes, err := io.ReadAll(io.NewSectionReader(w.notes, 0, 16<<20))
	before, after, both := bytes.Cut(notes, []byte("==\n"))
	if err != nil || !both || !bytes.Contains(after, []byte("==\n")) {
		return []string{"nobody knows what, since the unit that was to note it was killed as well"}
	}
	was := results(before)
	for unit, result := range results(after) {
		if slices.Contains(bad, result) && was[unit] != result {
			units = append(units, fmt.Sprintf("%s (%s)", Printable(unit), result))
		}
	}
	slices.Sort(units)
	return units
}

// results reads what systemctl show prints: a block for each unit.
func results(text []byte) map[string]string {
	all := map[string]string{}
	for block := range bytes.SplitSeq(text, []byte("\n\n")) {
		var unit, result string
		for line := range strings.Lines(string(block)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "Id":
				unit = value
			case "Result":
				result = value
			}
		}
		all[unit] = result
	}
	return all
}
