package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/storage"
	"nspawn-runner/runner/systemd"
)

// Leftovers lists what Collect removes: abandoned machines, and the trash. With an error, the list is
// incomplete.
func (s Store) Leftovers() ([]leftover.Item, error) {
	var all []leftover.Item
	abandoned, failed := s.allAbandoned()
	for _, machine := range abandoned {
		all = append(all, leftover.Item{
			What: "machine", Path: s.dir(machine.id), Why: machine.why,
			Remove: withBus(func(ctx context.Context, bus *systemd.Bus) error { return s.collect(ctx, bus, machine.id) }),
		})
	}
	trash, err := os.ReadDir(s.Trash)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = errors.Join(failed, fmt.Errorf("list the trash: %w", err))
	}
	for _, entry := range trash {
		path := filepath.Join(s.Trash, entry.Name())
		all = append(all, leftover.Item{
			What: "trash", Path: path, Why: "its deletion did not come to an end",
			Remove: func(ctx context.Context) error { return storage.Remove(ctx, path) },
		})
	}
	return all, failed
}

// Strays lists leftovers of machines outside of the state directory. It needs a host that runs systemd.
func (s Store) Strays(ctx context.Context) ([]leftover.Item, error) {
	bus, err := systemd.Host(ctx)
	if err != nil {
		return nil, err
	}
	defer bus.Close()
	units, err := s.strayUnits(ctx, bus)
	return append(units, s.emptyMountPoints(ctx, bus)...), err
}

// strayUnits lists the services of machines whose directory was removed by hand. A start makes the directory
// first, and a stop removes it last. So a service without a directory was not stopped.
func (s Store) strayUnits(ctx context.Context, bus *systemd.Bus) ([]leftover.Item, error) {
	units, err := bus.Units(ctx, unitName("*"))
	if err != nil {
		return nil, fmt.Errorf("list machines' services: %w", err)
	}
	var all []leftover.Item
	for _, unit := range units {
		id := strings.TrimSuffix(strings.TrimPrefix(unit.Name, "nspawn-runner-"), ".service")
		if exists(s.dir(id)) {
			continue
		}
		var state string
		err := bus.Property(ctx, unit.Name, "Unit", "ActiveState", &state)
		if err != nil || state == "inactive" {
			continue
		}
		argv, err := bus.Command(ctx, unit.Name)
		ours := err == nil && s.isOf(argv, id) // and not another state directory's
		if !ours || exists(s.dir(id)) {
			continue
		}
		all = append(all, leftover.Item{
			What: "unit", Path: unit.Name, Why: "the directory of its machine is gone",
			Remove: withBus(func(ctx context.Context, bus *systemd.Bus) error {
				lock, err := s.makeLocked(id) // so that it is not started meanwhile
				if errors.Is(err, fs.ErrExist) {
					return nil // it was started
				}
				if err != nil {
					return err
				}
				defer lock.Close()
				return s.remove(ctx, bus, id)
			}),
		})
	}
	return all, nil
}

// emptyMountPoints lists the mount points of machines that do not exist any more.
func (s Store) emptyMountPoints(ctx context.Context, bus *systemd.Bus) []leftover.Item {
	var all []leftover.Item
	for _, dir := range mountPoints {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			id, isMachine := strings.CutPrefix(entry.Name(), Name(""))
			if !isMachine || isYoung(path) || exists(s.dir(id)) || exists(filepath.Join("/run/systemd/machines", entry.Name())) {
				continue
			}
			// Another state directory's machine of this id may be starting.
			if argv, err := bus.Command(ctx, unitName(id)); len(argv) > 0 || err != nil && !systemd.IsNoSuchUnit(err) {
				continue
			}
			all = append(all, leftover.Item{
				What: "directory", Path: path, Why: "systemd-nspawn was killed",
				Remove: func(context.Context) error { return removeMountPoint(path) },
			})
		}
	}
	return all
}

// isYoung says whether a directory was made within the last minute, by the clock.
func isYoung(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && time.Since(info.ModTime()) < time.Minute
}
