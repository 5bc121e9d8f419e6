package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"nspawn-runner/runner/systemd"
)

// Collect stops the machines that nobody will stop any more: those whose
// gitlab-runner is dead, and those past their time. It also deletes what a
// crash left in the trash. It touches no machine that is locked, for somebody
// is at work on it.
func (s Store) Collect(ctx context.Context) error {
	records, err := s.Records()
	if err != nil {
		return err
	}
	var bus *systemd.Bus
	connect := func() error {
		if bus == nil {
			bus, err = systemd.Host(ctx)
		}
		return err
	}
	defer func() {
		if bus != nil {
			bus.Close()
		}
	}()
	var failed error
	for _, r := range records {
		why := r.abandoned(time.Now())
		if why == "" {
			continue
		}
		if err := connect(); err != nil {
			return err
		}
		s.logf("%s: %s", Name(r.ID), why)
		failed = errors.Join(failed, s.collect(ctx, bus, r.ID))
	}
	if entries, err := os.ReadDir(s.Trash); err == nil && len(entries) > 0 {
		if err := connect(); err != nil {
			return err
		}
		failed = errors.Join(failed, s.emptyTrashLater(ctx, bus))
	}
	return failed
}

// abandoned says why nobody will stop a machine, or "".
func (r Record) abandoned(now time.Time) string {
	switch {
	case r.Caller != nil && !r.Caller.Alive():
		return fmt.Sprintf("its gitlab-runner (process %d) is gone", r.Caller.PID)
	case now.After(r.Expires):
		return "its time is over"
	}
	return ""
}

// collect removes a machine, if it still is abandoned once its lock is held.
func (s Store) collect(ctx context.Context, bus *systemd.Bus, id string) error {
	busy, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	lock, err := s.lock(busy, id, false)
	if err != nil {
		return nil // gone, or somebody is at work on it
	}
	defer lock.Close()
	if r, err := readRecord(s.dir(id)); err != nil || r.abandoned(time.Now()) == "" {
		return err
	}
	return s.remove(ctx, bus, id)
}
