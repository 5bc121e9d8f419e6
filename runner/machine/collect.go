package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"nspawn-runner/runner/systemd"
)

// Collect stops the machines that nobody will stop any more: those whose
// gitlab-runner is dead, those past their time, and what a crash of the host
// or of this program left. It touches no machine that is locked, for somebody
// is at work on it.
func (s Store) Collect(ctx context.Context) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list machines: %w", err)
	}
	trash, err := os.ReadDir(s.Trash)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the trash: %w", err)
	}
	var abandoned []string
	for _, entry := range entries {
		if why := s.abandoned(entry.Name()); why != "" {
			s.logf("%s: %s", Name(entry.Name()), why)
			abandoned = append(abandoned, entry.Name())
		}
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
	for _, id := range abandoned {
		failed = errors.Join(failed, s.collect(ctx, bus, id))
	}
	if len(trash) > 0 {
		failed = errors.Join(failed, s.emptyTrashLater(ctx, bus))
	}
	return failed
}

// abandoned says why nobody will stop a machine, or "".
func (s Store) abandoned(id string) string {
	r, err := readRecord(s.dir(id))
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &syntax):
		return "it was never finished"
	case err != nil:
		return "" // made by a newer build, or not to be read: not ours to judge
	case r.Boot != "" && r.Boot != bootID():
		return "the host has been rebooted since"
	case r.Caller != nil && !r.Caller.Alive():
		return fmt.Sprintf("its gitlab-runner (process %d) is gone", r.Caller.PID)
	case time.Now().After(r.Expires):
		return "its time is over"
	}
	return ""
}

// collect removes a machine, if it still is abandoned once its lock is held.
func (s Store) collect(ctx context.Context, bus *systemd.Bus, id string) error {
	lock, err := s.tryLock(id)
	if err != nil {
		return nil // gone, or somebody is at work on it
	}
	defer lock.Close()
	if s.abandoned(id) == "" {
		return nil
	}
	return s.remove(ctx, bus, id)
}
