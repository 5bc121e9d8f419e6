package runner

import (
	"context"
	"errors"
	"fmt"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/leftover"
)

// Leftover is something that nobody owns any more.
type Leftover struct {
	What    string `json:"what"`
	Path    string `json:"path"`
	Why     string `json:"why"`
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"` // why it was not
}

// GC removes what is left of machines, builds and removed images, and that nobody else
// will remove, and of caches what is too much; with dryRun it only lists that. It touches
// nothing that a job or a build uses. What it lists counts also if there is an error.
func (h *Host) GC(ctx context.Context, dryRun bool) ([]Leftover, error) {
	if err := host.NeedRoot(); err != nil {
		return nil, err
	}
	leftovers, failed := h.leftovers(ctx)
	all := []Leftover{}
	for _, l := range leftovers {
		one := Leftover{What: l.What, Path: l.Path, Why: l.Why}
		if !dryRun {
			err := context.Cause(ctx)
			if err == nil {
				err = l.Remove(ctx)
				fault.Here("gc: one leftover removed")
			}
			if one.Removed = err == nil; err != nil {
				one.Error = err.Error()
				failed = errors.Join(failed, fmt.Errorf("%s %s: %w", l.What, l.Path, err))
			}
		}
		all = append(all, one)
	}
	return all, failed
}

// leftovers lists what GC removes: machines first, so that what they ran on
// may go too.
func (h *Host) leftovers(ctx context.Context) ([]leftover.Item, error) {
	all, failed := h.machines.Leftovers()
	if host.RunsSystemd() {
		strays, err := h.machines.Strays(ctx)
		all, failed = append(all, strays...), errors.Join(failed, err)
	}
	images, err := h.images.Leftovers()
	all, failed = append(all, images...), errors.Join(failed, err)
	pulled, err := h.oci.Leftovers()
	all, failed = append(all, pulled...), errors.Join(failed, err)
	caches, err := h.caches.Leftovers(ctx)
	return append(all, caches...), errors.Join(failed, err)
}
