package runner

import (
	"context"
	"path/filepath"

	"nspawn-runner/runner/image"
)

// ChrootRollback makes the generation before the current one current again, or
// the one with the stamp to.
func (h *Host) ChrootRollback(ctx context.Context, name, to string, asJSON bool) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	now, was, err := h.images().Rollback(ctx, name, to)
	if err != nil {
		return err
	}
	if asJSON {
		return h.printJSON(map[string]string{"image": name, "generation": now.Name, "was": was.Name})
	}
	if now == was {
		h.say("%s: generation %s is the current one already", name, now.Name)
		return nil
	}
	h.say("%s: new jobs get generation %s; running ones keep theirs", name, now.Name)
	h.say("%s: the next maintenance goes on from it; to undo this before: chroot-rollback --to %s %s", name, filepath.Base(was.Name), name)
	return nil
}

// KeptGenerations is how many generations stay when nobody says.
const KeptGenerations = image.KeptGenerations

// ChrootPrune removes the older generations of an image, "" for all images, but
// keeps some, and those that machines run on.
func (h *Host) ChrootPrune(ctx context.Context, only string, keep int, asJSON bool) error {
	store := h.images()
	names := []string{only}
	if only == "" {
		images, err := store.List()
		if err != nil {
			return err
		}
		names = nil
		for _, i := range images {
			if i.Exists {
				names = append(names, i.Name)
			}
		}
		removed, err := store.Removed()
		if err != nil {
			return err
		}
		names = append(names, removed...)
	}
	if err := h.needImages(names...); err != nil {
		return err
	}
	type row struct {
		Image string `json:"image"`
		image.Pruned
	}
	rows := []row{}
	for _, name := range names {
		pruned, err := store.Prune(ctx, name, keep)
		if err != nil {
			return err
		}
		rows = append(rows, row{name, pruned})
	}
	if asJSON {
		return h.printJSON(rows)
	}
	nothing := true
	for _, r := range rows {
		h.sayPruned(r.Image, r.Pruned)
		nothing = nothing && len(r.Removed)+len(r.InUse) == 0 && !r.Failed
	}
	if nothing {
		h.say("nothing to remove")
	}
	return nil
}

func (h *Host) sayPruned(name string, pruned image.Pruned) {
	for _, generation := range pruned.Removed {
		h.say("%s: removed generation %s", name, generation)
	}
	for _, generation := range pruned.InUse {
		h.say("%s: generation %s is in use by jobs; a later prune or maintenance removes it", name, generation)
	}
	if pruned.Failed {
		h.say("%s: removed the tree of a failed build", name)
	}
}

// ChrootRemove removes an image's chroot. Jobs that run on it go on; the playbook
// stays.
func (h *Host) ChrootRemove(ctx context.Context, name string, asJSON bool) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	store := h.images()
	known, err := store.Get(name)
	if err != nil {
		return err
	}
	pruned, err := store.Remove(ctx, name)
	if err != nil {
		return err
	}
	if asJSON {
		type row struct {
			Image string `json:"image"`
			image.Pruned
			Playbook string `json:"playbook,omitempty"`
		}
		return h.printJSON(row{name, pruned, known.Playbook})
	}
	h.sayPruned(name, pruned)
	h.say("%s: removed", name)
	if known.Playbook != "" {
		h.say("%s: its playbook %s stays, so the next maintenance creates it again", name, known.Playbook)
	}
	return nil
}

// pruneRemoved removes what is left of images that were removed while jobs ran
// on them. It fails no maintenance.
func (h *Host) pruneRemoved(ctx context.Context) {
	store := h.images()
	names, err := store.Removed()
	for _, name := range names {
		if _, err := store.Failed(name); err == nil {
			continue // it is to be looked at, and created again
		}
		if store.Building(name) {
			continue // it was not removed: it is being created
		}
		var pruned image.Pruned
		if pruned, err = store.Prune(ctx, name, image.KeptGenerations); err != nil {
			break
		}
		h.sayPruned(name, pruned)
	}
	if err != nil {
		h.say("warning: remove what is left of removed images: %v", err)
	}
}
