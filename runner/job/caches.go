package job

import (
	"context"
	"path/filepath"
	"time"

	"nspawn-runner/runner/cache"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/statedir"
	"nspawn-runner/runner/systemd"
)

// pruneInline is how long cleanup prunes caches itself before a service in the background takes over.
// Usually that takes a millisecond.
const pruneInline = 200 * time.Millisecond

// CachesOf returns the caches of jobs in a state directory. machines are those that may have some of
// them bound.
func CachesOf(settings config.Config, machines machine.Store) cache.Store {
	dir := host.Resolved(filepath.Join(settings.StateDir, statedir.Cache)) // a bind must not lead through links
	disk := host.DiskSize(host.Lowest(dir))                                // it may be a mount
	return cache.Store{
		Dir:        dir,
		Max:        settings.CacheMax.Bytes(disk),
		ProjectMax: settings.CacheMaxProject.Bytes(disk),
		InUse:      func() ([]string, error) { return bound(machines) },
	}
}

// bound lists the paths of the host that machines on record have bound.
func bound(machines machine.Store) ([]string, error) {
	records, err := machines.Records()
	var all []string
	for _, record := range records {
		for _, bind := range record.Binds {
			all = append(all, host.Resolved(bind.From))
		}
	}
	return all, err
}

// PruneCaches removes files and caches until cache_max and cache_max_project hold.
func (d *Driver) PruneCaches(ctx context.Context) error {
	if err := host.NeedRoot(); err != nil {
		return err
	}
	return d.Caches.Prune(ctx)
}

// pruneCaches is PruneCaches for a stage. Large caches would make the stage wait, so a service goes on
// after pruneInline, also when this process ends.
func (d *Driver) pruneCaches(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- d.PruneCaches(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(pruneInline):
	}
	bus, err := systemd.Host(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	command := []string{d.Program, "prune-caches"}
	if d.ConfigFile != "" {
		command = append(command, "--config", d.ConfigFile)
	}
	return bus.Background(ctx, "nspawn-runner_caches", d.Caches.Dir, "Keep the caches of CI jobs within bounds", command...)
}
