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

// undoTimeout bounds the removal of a machine after a failure or a signal.
const undoTimeout = 60 * time.Second

// discardInline is how long a stage deletes a tree itself before a unit in the background takes over.
const discardInline = 2 * time.Second

// awayLimit is how long the host's service manager or its bus may be away. After that, Collect removes the
// machine later.
const awayLimit = 30 * time.Second

// removeAtLast is remove, and tries again if the host's service manager or its bus restarts meanwhile.
// gitlab-runner calls cleanup once, and no other process would stop the machine soon.
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

// remove removes a machine. The caller must hold its lock.
func (s Store) remove(ctx context.Context, bus *systemd.Bus, id string) error {
	if err := s.halt(ctx, bus, id); err != nil {
		return err
	}
	if err := s.removeTrash(ctx, bus, id); err != nil {
		return err
	}
	// This comes before the directory goes, which is the lock: later, another machine may have the id.
	if err := s.leave(id); err != nil {
		return err
	}
	fault.Here("machine: out of the index")
	return s.throwAway(ctx, bus, s.dir(id), id)
}

// removeTrash removes what an earlier start or stop of the machine, which was killed, left in the trash.
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

// throwAway moves a tree to the trash and deletes it there. So its name is free at once. If a full disk does
// not allow the move, the tree is deleted where it is.
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

// discard deletes a tree in the trash. After discardInline a service takes over, which goes on when this
// process ends or is killed with its control group.
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

// EmptyTrash deletes everything in a trash directory, also what is moved there meanwhile.
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

// withBus returns a function that calls do with a new connection to the host's bus.
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
