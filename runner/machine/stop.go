package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/storage"
	"nspawn-runner/runner/systemd"
)

// undoTimeout bounds what is done after a failure or a signal.
const undoTimeout = 60 * time.Second

// discardInline is how long a stage deletes by itself before it leaves the
// rest of a big tree to a unit of its own.
const discardInline = 2 * time.Second

// awayLimit is how long the host's service manager, or its bus, may be away before
// a machine that is to be stopped is left to Collect.
const awayLimit = 30 * time.Second

// removeAtLast is remove, and again when the host's service manager or its bus went
// away meanwhile: they are being restarted. gitlab-runner calls cleanup once, and
// nobody else would stop the machine soon.
func (s Store) removeAtLast(ctx context.Context, id string) error {
	remove := withBus(func(ctx context.Context, bus *systemd.Bus) error { return s.remove(ctx, bus, id) })
	limit := time.After(awayLimit)
	for {
		err := remove(ctx)
		if err == nil || !systemd.IsAway(err) {
			return err
		}
		s.logf("once more: %v", err)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limit:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// remove removes a machine whose lock is held.
func (s Store) remove(ctx context.Context, bus *systemd.Bus, id string) error {
	if err := s.halt(ctx, bus, id); err != nil {
		return err
	}
	if err := s.removeTrash(ctx, bus, id); err != nil {
		return err
	}
	// First, since without its directory no lock keeps another one of its id away.
	if err := s.leave(id); err != nil {
		return err
	}
	fault.Here("machine: out of the index")
	return s.throwAway(ctx, bus, s.dir(id), id)
}

// removeTrash removes what an earlier start or stop of the machine left in the
// trash, killed before it could.
func (s Store) removeTrash(ctx context.Context, bus *systemd.Bus, id string) error {
	entries, err := os.ReadDir(s.Trash)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the trash: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), id+".") {
			if err := s.discard(ctx, bus, filepath.Join(s.Trash, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// throwAway moves a tree to the trash and deletes it there: once moved, its
// name is free. Where a full disk does not even allow that, it is deleted
// where it is.
func (s Store) throwAway(ctx context.Context, bus *systemd.Bus, path, id string) error {
	bin := filepath.Join(s.Trash, id+"."+rand.Text()[:8])
	err := os.Rename(path, bin)
	switch {
	case err == nil:
		fault.Here("machine: moved to the trash")
		return s.discard(ctx, bus, bin)
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return s.discard(ctx, bus, path)
}

// discard deletes a tree in the trash. A big one is left to a service, in
// which it goes on when this process ends, or is killed with its control group.
func (s Store) discard(ctx context.Context, bus *systemd.Bus, path string) error {
	done := make(chan error, 1)
	go func() { done <- storage.Remove(context.WithoutCancel(ctx), path) }()
	select {
	case err := <-done:
		return err
	case <-time.After(discardInline):
		return s.emptyTrashLater(ctx, bus)
	}
}

func (s Store) emptyTrashLater(ctx context.Context, bus *systemd.Bus) error {
	s.logf("empty %s in the background", s.Trash)
	return bus.Background(ctx, "nspawn-runner_trash", s.Trash, "Delete what CI machines left", s.Program, "empty-trash", s.Trash)
}

// EmptyTrash deletes everything in a trash directory, and what arrives
// meanwhile.
func EmptyTrash(ctx context.Context, trash string) error {
	var failed error
	for {
		entries, err := os.ReadDir(trash)
		if err != nil || len(entries) == 0 || failed != nil {
			return errors.Join(err, failed)
		}
		for _, entry := range entries {
			failed = errors.Join(failed, storage.Remove(ctx, filepath.Join(trash, entry.Name())))
			fault.Here("trash: a tree removed")
		}
	}
}

// withBus does something with a connection to the host's bus of its own.
func withBus(do func(context.Context, *systemd.Bus) error) func(context.Context) error {
	return func(ctx context.Context) error {
		bus, err := systemd.Host(ctx)
		if err != nil {
			return err
		}
		defer bus.Close()
		return do(ctx, bus)
	}
}
