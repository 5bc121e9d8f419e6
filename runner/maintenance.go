package runner

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"nspawn-runner/runner/image"
)

// Maintenance says how images are maintained.
type Maintenance struct {
	// Image is the only one, "" for all.
	Image string
	// Recreate builds them from scratch.
	Recreate bool
	// IfOlder skips those that were maintained less than this time ago.
	IfOlder time.Duration
	// NoWait fails on those that are being built already.
	NoWait bool
}

// ChrootMaintenance runs the playbooks of images, and creates what is missing.
// It goes on after a failure. Of all images it prints a table in the end.
func (h *Host) ChrootMaintenance(ctx context.Context, how Maintenance) error {
	names := []string{how.Image}
	if how.Image == "" {
		var err error
		if names, err = h.maintainable(); err != nil {
			return err
		}
		if len(names) == 0 {
			h.say("no playbooks in %s or %s", h.Config.PlaybookDir, h.Config.StateDir)
		}
	}
	if err := h.needImages(names...); err != nil {
		return err
	}
	var failed []string
	table := tabwriter.NewWriter(h.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tRESULT\tGENERATION\tTIME")
	for _, name := range names {
		began := time.Now()
		generation, outcome, err := h.maintain(ctx, name, how)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if how.Image != "" {
				return err
			}
			h.say("%v", err)
			failed = append(failed, name)
			outcome = "failed"
		}
		switch outcome {
		case image.Published:
			h.say("%s: published, generation %s", name, generation.Name)
		case image.Unchanged:
			h.say("%s: up to date, generation %s stays", name, generation.Name)
		case image.Fresh:
			h.say("%s: maintained less than %s ago, generation %s stays", name, how.IfOlder, generation.Name)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, outcome, generation.Name, time.Since(began).Round(time.Second))
	}
	if how.Image != "" {
		return nil
	}
	h.pruneRemoved(ctx)
	if len(names) > 0 {
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("maintenance of %d of %d images failed: %q", len(failed), len(names), failed)
	}
	return nil
}

// maintainable lists the images that have a playbook.
func (h *Host) maintainable() ([]string, error) {
	images, err := h.images().List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range images {
		if i.Playbook == "" {
			h.say("%s: no playbook, so nothing to maintain", i.Name)
			continue
		}
		names = append(names, i.Name)
	}
	return names, nil
}

// maintain checks an image's settings before it spends minutes on it.
func (h *Host) maintain(ctx context.Context, name string, how Maintenance) (image.Generation, image.Outcome, error) {
	settings, err := h.imageConfig(name)
	if err != nil {
		return image.Generation{}, "", err
	}
	return h.images().Maintain(ctx, name, image.MaintainOptions{
		Bootstrap: bootstrap(settings), Recreate: how.Recreate || settings.MaintRecreate,
		IfOlder: how.IfOlder, NoWait: how.NoWait,
	})
}
