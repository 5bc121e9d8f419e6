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

// stopping is a file in the directory of a machine whose stop has begun. It holds the reason why
// a stop failed, if one did.
const stopping = "stopping"

// halt stops a machine's service, checks that none of its processes is left, and removes what
// systemd keeps of it.
func (s Store) halt(ctx context.Context, bus *systemd.Bus, id string) error {
	record, _ := readRecord(s.dir(id)) // empty if there is none
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

// isOf says whether the command line of a service names the directory of machine id in this state
// directory. The path may be a different one, such as through a link.
func (s Store) isOf(argv []string, id string) bool {
	return len(argv) > 0 && isSame(argv[len(argv)-1], s.dir(id))
}

// patience is how long to wait for the end of a machine's processes. After a stop that failed, it
// is short, because the prepare of each job tries again.
func (s Store) patience(id string) time.Duration {
	if note, err := os.Stat(filepath.Join(s.dir(id), stopping)); err == nil && note.Size() > 0 {
		return killPause
	}
	return emptyLimit
}

// stopService stops the service of a machine and waits until no process of it is left. systemd
// gives up on a process that cannot be killed and calls the service stopped. stopService then
// fails, because that process still has its memory, its disk and its user ids. The record tells
// the control group if systemd does not.
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

// mountPoints are directories in which systemd-nspawn makes a directory for each machine. A
// systemd-nspawn that is killed leaves it behind, empty.
var mountPoints = []string{"/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export"}

// removeMountPoint removes an empty directory. One that is not empty is in use.
func removeMountPoint(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// noteStop writes the file stopping, so that Collect finishes the stop if this process does not.
// On a full disk there is no file. An empty why keeps the reason of an earlier stop.
func (s Store) noteStop(id, why string) {
	note, err := os.OpenFile(filepath.Join(s.dir(id), stopping), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer note.Close()
	_, _ = note.WriteString(why)
}
