package runner

import (
	"context"
	"errors"
	"fmt"

	"nspawn-runner/runner/image"
)

// RolledBack is what a rollback came to: names of generations, which are the same if
// there was nothing to do.
type RolledBack struct {
	Generation string `json:"generation"` // the one that is current now
	Image      string `json:"image"`
	Was        string `json:"was"` // the one that was current before
}

// Rollback makes the generation before the current one current again, or the one with
// the stamp to.
func (h *Host) Rollback(ctx context.Context, name, to string) (RolledBack, error) {
	if err := h.needImages(name); err != nil {
		return RolledBack{}, err
	}
	now, was, err := h.images.Rollback(ctx, name, to)
	return RolledBack{now.Name, name, was.Name}, err
}

// KeptGenerations is how many generations stay when nobody says.
const KeptGenerations = image.KeptGenerations

// Pruned is what was removed of an image.
type Pruned struct {
	Image string `json:"image"`
	image.Pruned
	// Playbook is the path of the playbook that stays when the whole chroot goes.
	Playbook string `json:"playbook,omitempty"`
}

// Lines are lines for people.
func (p Pruned) Lines() (lines []string) {
	for _, generation := range p.Removed {
		lines = append(lines, fmt.Sprintf("%s: removed generation %s", p.Image, generation))
	}
	for _, generation := range p.InUse {
		lines = append(lines, fmt.Sprintf("%s: generation %s is in use by jobs; a later prune or maintenance removes it", p.Image, generation))
	}
	if p.Failed {
		lines = append(lines, p.Image+": removed the tree of a failed build")
	}
	return lines
}

// Prune removes the older generations of an image, "" for all images, but keeps some,
// and those that machines run on. It goes on after a failure: what it returns counts also
// if there is an error.
func (h *Host) Prune(ctx context.Context, only string, keep int) ([]Pruned, error) {
	store := h.images
	names := []string{only}
	if only == "" {
		images, err := store.List()
		if err != nil {
			return nil, err
		}
		names = nil
		for _, i := range images {
			if i.Exists {
				names = append(names, i.Name)
			}
		}
		removed, err := store.Removed()
		if err != nil {
			return nil, err
		}
		names = append(names, removed...)
	}
	if err := h.needImages(names...); err != nil {
		return nil, err
	}
	all := []Pruned{}
	var failed error
	for _, name := range names {
		if ctx.Err() != nil {
			return all, errors.Join(failed, context.Cause(ctx))
		}
		pruned, err := store.Prune(ctx, name, keep)
		failed = errors.Join(failed, err)
		if err == nil || len(pruned.Removed) > 0 || pruned.Failed {
			all = append(all, Pruned{Image: name, Pruned: pruned})
		}
	}
	return all, failed
}

// Remove removes an image's chroot. Jobs that run on it go on; the playbook stays.
func (h *Host) Remove(ctx context.Context, name string) (Pruned, error) {
	if err := h.needImages(name); err != nil {
		return Pruned{}, err
	}
	store := h.images
	known, err := store.Get(name)
	if err != nil {
		return Pruned{}, err
	}
	pruned, err := store.Remove(ctx, name)
	return Pruned{name, pruned, known.Playbook}, err
}

// pruneRemoved removes what is left of images that were removed while jobs ran
// on them. It fails no maintenance.
func (h *Host) pruneRemoved(ctx context.Context) {
	store := h.images
	names, failed := store.Removed()
	for _, name := range names {
		if _, err := store.Failed(name); err == nil {
			continue // it is to be looked at, and created again
		}
		if store.Building(name) {
			continue // it was not removed: it is being created
		}
		pruned, err := store.Prune(ctx, name, image.KeptGenerations)
		failed = errors.Join(failed, err)
		for _, line := range (Pruned{Image: name, Pruned: pruned}).Lines() {
			h.note("%s", line)
		}
	}
	if failed != nil {
		h.note("warning: remove what is left of removed images: %v", failed)
	}
}
