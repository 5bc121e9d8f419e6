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

// Collect stops the machines that nobody will stop any more: those whose
// gitlab-runner is dead, those past their time, and what a crash of the host
// or of this program left. It touches no machine that is locked, for somebody
// is at work on it. It is called before each start: where there is nothing to
// do, it takes a millisecond or two.
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

// abandonedMachine is one that nobody will stop, and why.
type abandonedMachine struct{ id, why string }

// allAbandoned lists the machines that nobody will stop. A machine that is
// locked is not among them.
func (s Store) allAbandoned() ([]abandonedMachine, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var all []abandonedMachine
	for _, entry := range entries {
		id := entry.Name()
		if isBeingMade(id) {
			continue // and is not locked yet
		}
		lock, err := s.tryLock(id)
		if err != nil {
			continue // gone, or somebody is at work on it
		}
		if why := s.abandoned(id); why != "" {
			all = append(all, abandonedMachine{id, why})
		}
		lock.Close()
	}
	return append(all, s.besideAbandoned(all)...), nil
}

// besideAbandoned lists what is beside abandoned machines: their jobs are over.
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

// abandoned says why nobody will stop a machine, or "". Its lock must be held:
// who starts or stops a machine has it, until the end.
func (s Store) abandoned(id string) string {
	r, err := readRecord(s.dir(id))
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &syntax):
		return "it was never finished"
	case err != nil:
		return "" // made by a newer build, or not to be read: not ours to judge
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
	case err != nil && !found && r.CreatedUptime > 0 && !r.Leader.Alive(): // on a disk that could not be written to
		return "its cleanup did not come to its end"
	case err != nil:
		return ""
	case note.Size() > 0:
		return "its cleanup could not kill all of its processes"
	}
	return "its cleanup was killed"
}

// collect removes a machine, and what is beside it, if it still is abandoned once its lock
// is held.
func (s Store) collect(ctx context.Context, bus *systemd.Bus, id string) error {
	lock, err := s.tryLock(id)
	if err != nil {
		return nil // gone, or somebody is at work on it
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
		// First, since afterwards nobody knows of it.
		failed = record.CallerDir.remove()
		fault.Here("machine: directory of its gitlab-runner removed")
	}
	return errors.Join(failed, s.collectBeside(ctx, bus, record), s.remove(ctx, bus, id))
}

// collectBeside removes the other machines of a job, but for those that somebody is at work
// on. First it notes that they are to go, so that they are abandoned from then on.
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
