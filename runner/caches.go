package runner

import (
	"context"
	"path/filepath"
	"time"

	"nspawn-runner/runner/cache"
	"nspawn-runner/runner/systemd"
)

// pruneInline is how long cleanup looks after caches itself, before it leaves
// them to a service of their own. Commonly that takes a millisecond.
const pruneInline = 200 * time.Millisecond

func (h *Host) caches() cache.Store {
	dir := resolved(filepath.Join(h.Config.StateDir, ".cache")) // no bind is reached by links
	disk := diskSize(lowest(dir))                               // it may lie elsewhere
	return cache.Store{
		Dir:        dir,
		Max:        h.Config.CacheMax.Bytes(disk),
		ProjectMax: h.Config.CacheMaxProject.Bytes(disk),
		InUse:      h.bound,
	}
}

// bound lists what of the host machines on record have bound.
func (h *Host) bound() ([]string, error) {
	records, err := h.machines().Records()
	var all []string
	for _, record := range records {
		for _, bind := range record.Binds {
			all = append(all, resolved(bind.From))
		}
	}
	return all, err
}

// PruneCaches takes from the caches what is too much.
func (h *Host) PruneCaches(ctx context.Context) error {
	if err := needRoot(); err != nil {
		return err
	}
	return h.caches().Prune(ctx)
}

// pruneCaches is PruneCaches for a stage, which must not be kept waiting by big
// caches: those are left to a service, in which it goes on when this process ends.
func (h *Host) pruneCaches(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- h.PruneCaches(ctx) }()
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
	command := []string{h.Program, "prune-caches"}
	if h.configFile != "" {
		command = append(command, "--config", h.configFile)
	}
	return bus.Background(ctx, "nspawn-runner_caches", h.caches().Dir, "Keep the caches of CI jobs within bounds", command...)
}
