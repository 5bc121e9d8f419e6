package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/systemd"
)

// Collect removes abandoned machines, which no process will remove any more: those whose
// gitlab-runner is dead, those past their time, and those that a crash of the host or of this
// program left. It leaves locked machines alone, because another process works on them. It is
// called before each start. If there is nothing to remove, it takes a millisecond or two.
func (s Store) Collect(ctx context.Context) error {
	abandoned, err := s.allAbandoned()
	if err != nil {
		return err
	}
	trash, err := os.ReadDir(s.Trash)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the trash: %w", err)
	}
	if len(abandoned)+len(trash) == 0 {
		return nil // nearly always
	}
	bus, err := systemd.Host(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	var failed error
	for _, machine := range abandoned {
		s.logf("%s: %s", Name(machine.id), machine.why)
		failed = errors.Join(failed, s.collect(ctx, bus, machine.id))
	}
	if len(trash) > 0 {
		failed = errors.Join(failed, s.emptyTrashLater(ctx, bus))
	}
	return failed
}

// abandonedMachine is an abandoned machine, and why it is one.
type abandonedMachine struct{ id, why string }

// allAbandoned lists the abandoned machines. A machine that is locked is not among them.
func (s Store) allAbandoned() ([]abandonedMachine, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var all []abandonedMachine
	for _, entry := range entries {
		id := entry.Name()
		if isBeingMade(id) {
			continue // a start makes its directory, and locks it before it gets its name
		}
		lock, err := s.tryLock(id)
		if err != nil {
			continue // gone, or another process works on it
		}
		if why := s.abandoned(id); why != "" {
			all = append(all, abandonedMachine{id, why})
		}
		lock.Close()
	}
	return append(all, s.besideAbandoned(all)...), nil
}

// besideAbandoned lists the other machines of the jobs of abandoned machines: these jobs are over.
func (s Store) besideAbandoned(abandoned []abandonedMachine) (all []abandonedMachine) {
	for _, m := range abandoned {
		record, err := readRecord(s.dir(m.id))
		if err != nil {
			continue
		}
		for _, other := range s.beside(record) {
			known := func(m abandonedMachine) bool { return m.id == other.ID }
			if slices.ContainsFunc(abandoned, known) || slices.ContainsFunc(all, known) {
				continue
			}
			if lock, err := s.tryLock(other.ID); err == nil {
				all = append(all, abandonedMachine{other.ID, fmt.Sprintf("its job is over: %s: %s", Name(m.id), m.why)})
				lock.Close()
			}
		}
	}
	return all
}

// abandoned says why a machine is abandoned, or "" if it is not. The caller must hold the lock of
// the machine. A process that starts or stops a machine holds the lock until it is done, so a
// half-made machine whose lock is free is abandoned.
func (s Store) abandoned(id string) string {
	r, err := readRecord(s.dir(id))
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &syntax):
		return "it was never finished"
	case err != nil:
		return "" // a newer version made it, or it cannot be read: leave it alone
	case r.Boot != "" && r.Boot != host.BootID():
		return "the host has been rebooted since"
	case r.Caller != nil && !r.Caller.Alive():
		return fmt.Sprintf("its gitlab-runner (process %d) is gone", r.Caller.PID)
	case r.Leader == nil:
		return "its start was killed"
	case r.isOver():
		return "its time is over"
	}
	note, err := os.Lstat(filepath.Join(s.dir(id), stopping))
	_, found := Find(id)
	switch {
	case err != nil && !found && r.CreatedUptime > 0 && !r.Leader.Alive(): // the disk was full, so there is no note
		return "its cleanup did not come to its end"
	case err != nil:
		return ""
	case note.Size() > 0:
		return "its cleanup could not kill all of its processes"
	}
	return "its cleanup was killed"
}

// collect removes a machine and the other machines of its job, if it still is abandoned once its
// lock is held.
func (s Store) collect(ctx context.Context, bus *systemd.Bus, id string) error {
	lock, err := s.tryLock(id)
	if err != nil {
		return nil // gone, or another process works on it
	}
	defer lock.Close()
	if s.abandoned(id) == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	record, _ := readRecord(s.dir(id))
	var failed error
	if record.CallerDir != nil && (record.Boot != host.BootID() || !record.Caller.Alive()) {
		// First, because the path is only in the record.
		failed = record.CallerDir.remove()
		fault.Here("machine: directory of its gitlab-runner removed")
	}
	result, _ := s.Result(id)
	var used []MachineUsage
	if record.Boot == host.BootID() {
		used = s.UsageOfAll(record)
	}
	failed = errors.Join(failed, s.collectBeside(ctx, bus, record), s.remove(ctx, bus, id))
	if failed == nil && s.Collected != nil && record.Role == Main && record.Leader != nil {
		s.Collected(Collected{record.Job, record.Owner, record.Image, record.Project, result, used})
	}
	return failed
}

// collectBeside removes the other machines of a job, except those that another process works on.
// First it notes in each that it is to be removed, so that they count as abandoned from then on.
func (s Store) collectBeside(ctx context.Context, bus *systemd.Bus, r Record) (failed error) {
	var ids []string
	for _, other := range s.beside(r) {
		if lock, err := s.tryLock(other.ID); err == nil {
			defer lock.Close()
			s.noteStop(other.ID, "")
			ids = append(ids, other.ID)
		}
	}
	for _, id := range ids {
		failed = errors.Join(failed, s.remove(ctx, bus, id))
	}
	return failed
}
