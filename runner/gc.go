package runner

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/storage"
)

// GC removes what is left of machines, builds and removed images, and that
// nobody else will remove, and of caches what is too much; with dryRun it only says what and why. It touches
// nothing that a job or a build uses.
func (h *Host) GC(ctx context.Context, dryRun, asJSON bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	leftovers, failed := h.leftovers(ctx)
	type row struct {
		What    string `json:"what"`
		Path    string `json:"path"`
		Why     string `json:"why"`
		Removed bool   `json:"removed"`
		Error   string `json:"error,omitempty"`
	}
	rows := []row{}
	for _, l := range leftovers {
		r := row{What: l.What, Path: l.Path, Why: l.Why}
		if !dryRun {
			err := context.Cause(ctx)
			if err == nil {
				err = l.Remove(ctx)
				fault.Here("gc: one leftover removed")
			}
			if r.Removed = err == nil; err != nil {
				r.Error = err.Error()
				failed = errors.Join(failed, fmt.Errorf("%s %s: %w", l.What, l.Path, err))
			}
		}
		rows = append(rows, r)
	}
	if asJSON {
		return errors.Join(failed, h.printJSON(rows))
	}
	table := tabwriter.NewWriter(h.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		state := "removed"
		switch {
		case dryRun:
			state = "to remove"
		case !r.Removed:
			state = "stays"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", state, r.What, r.Path, r.Why)
	}
	if len(rows) == 0 && failed == nil {
		h.say("nothing to remove")
	}
	return errors.Join(failed, table.Flush())
}

// leftovers lists what GC removes: machines first, so that what they ran on
// may go too.
func (h *Host) leftovers(ctx context.Context) ([]storage.Leftover, error) {
	all, failed := h.machines().Leftovers()
	if runsSystemd() {
		strays, err := h.machines().Strays(ctx)
		all, failed = append(all, strays...), errors.Join(failed, err)
	}
	images, err := h.images().Leftovers()
	all, failed = append(all, images...), errors.Join(failed, err)
	caches, err := h.caches().Leftovers(ctx)
	return append(all, caches...), errors.Join(failed, err)
}
