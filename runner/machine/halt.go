package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/systemd"
)

// stopping is a file in the directory of a machine that somebody began to stop. It holds
// what was in the way, as far as that is known.
const stopping = "stopping"

// halt stops a machine's service, looks that none of its processes is left, and removes
// what systemd keeps of it.
func (s Store) halt(ctx context.Context, bus *systemd.Bus, id string) error {
	record, _ := readRecord(s.dir(id)) // as far as there is one
	return record.withoutFUSE(func() error { return s.stopAndForget(ctx, bus, id, record) })
}

func (s Store) stopAndForget(ctx context.Context, bus *systemd.Bus, id string, record Record) error {
	unit := unitName(id)
	argv, err := bus.Command(ctx, unit)
	if err != nil && !systemd.IsNoSuchUnit(err) {
		return fmt.Errorf("machine %s: look at %s: %w", Name(id), unit, err)
	}
	if len(argv) > 0 && !s.isOf(argv, id) {
		if record.up() {
			return fmt.Errorf("machine %s: %s runs, but for %s", Name(id), unit, argv[len(argv)-1])
		}
		return nil // another state directory on this host has a machine of this id
	}
	s.logf("stop %s", unit)
	if err := stopService(ctx, bus, unit, record, s.patience(id)); err != nil {
		var left survivors
		if errors.As(err, &left) {
			s.noteStop(id, left.Error())
		}
		return fmt.Errorf("machine %s: stop %s: %w", Name(id), unit, err)
	}
	fault.Here("machine: service stopped")
	if err := bus.ResetFailed(ctx, unit); err != nil {
		return fmt.Errorf("machine %s: reset %s: %w", Name(id), unit, err)
	}
	fault.Here("machine: service forgotten")
	// systemd 252 leaves the file in which it tells journald a unit's LogExtraFields= (seen).
	_ = os.Remove("/run/systemd/units/log-extra-fields:" + unit)
	s.logf("%s is stopped", unit)
	for _, dir := range mountPoints {
		_ = removeMountPoint(filepath.Join(dir, Name(id)))
	}
	fault.Here("machine: mount points removed")
	return nil
}

// isOf says whether the command line of a machine's service is that of the machine with
// this id here. The directory in it may be called by another name, as behind a link.
func (s Store) isOf(argv []string, id string) bool {
	return len(argv) > 0 && isSame(argv[len(argv)-1], s.dir(id))
}

// patience is how long the processes of a machine may take to go. Where they have not
// gone before, each job's prepare would wait for them again.
func (s Store) patience(id string) time.Duration {
	if note, err := os.Stat(filepath.Join(s.dir(id), stopping)); err == nil && note.Size() > 0 {
		return killPause
	}
	return emptyLimit
}

// stopService stops the service of a machine, whose record is needed as far as there is
// one. It fails when a process is left, which then keeps its memory, its disk and its
// user ids: systemd gives up after a while and calls a service stopped all the same.
func stopService(ctx context.Context, bus *systemd.Bus, unit string, record Record, patience time.Duration) error {
	var group string
	err := bus.Property(ctx, unit, "Service", "ControlGroup", &group)
	if err != nil && !systemd.IsNoSuchUnit(err) {
		return err
	}
	group = cmp.Or(group, record.Cgroup)
	if err := bus.Stop(ctx, unit); err != nil || group == "" {
		return err
	}
	return awaitEmpty(ctx, group, patience)
}

// mountPoints are where systemd-nspawn makes a directory for each machine. A
// killed one leaves it behind, empty.
var mountPoints = []string{"/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export"}

// removeMountPoint removes an empty directory. One that is not empty is in use.
func removeMountPoint(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// noteStop is for Collect, if this process does not come to an end. On a full disk it
// goes without. What was in the way of an earlier stop stays there.
func (s Store) noteStop(id, why string) {
	note, err := os.OpenFile(filepath.Join(s.dir(id), stopping), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer note.Close()
	_, _ = note.WriteString(why)
}
