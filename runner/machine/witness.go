package machine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// witness is a unit in a machine that is about to shut down. It stops after all ordinary services, and notes
// how they stopped. This cannot be found out later: the bus has stopped by then, and the journal is in
// memory.
type witness struct{ notes *os.File }

const (
	// testimony prints the results of all units. It is executed when the witness starts and when it
	// stops.
	testimony = "systemctl show --no-pager --property=Id --property=Result '*'; echo =="
	// witnessLimit is how long testimony may take.
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
		err = fmt.Errorf("a unit that notes how services stop did not start: %s", printable.Line(result))
	}
	return err
}

// Close releases the notes of the witness.
func (w *witness) Close() error { return w.notes.Close() }

// bad are the results of a unit that systemd or the kernel had to kill: systemd.exec(5), $SERVICE_RESULT. A
// service that fails or crashes when it is stopped does so on every Debian machine, and does not count.
var bad = []string{"timeout", "watchdog", "oom-kill"}

// killed returns the units that were killed since the witness started.
func (w *witness) killed() (units []string) {
	notes, err := io.ReadAll(io.NewSectionReader(w.notes, 0, 16<<20))
	before, after, both := bytes.Cut(notes, []byte("==\n"))
	if err != nil || !both || !bytes.Contains(after, []byte("==\n")) {
		return []string{"it is not known what, because the unit that notes it was killed too"}
	}
	was := results(before)
	for unit, result := range results(after) {
		if slices.Contains(bad, result) && was[unit] != result {
			units = append(units, fmt.Sprintf("%s (%s)", printable.Line(unit), result))
		}
	}
	slices.Sort(units)
	return units
}

// results parses the output of systemctl show, which has a block for each unit.
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
