package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/lock"
)

// Leftovers lists all that is left of builds and removed images and that nothing will
// remove, or only the next build. Nothing is among it that a build at work,
// or a machine, uses. Older generations are for Prune, and the tree of a failed
// build is for an administrator to look at. With an error, it is what could be found out.
func (s *Store) Leftovers() ([]leftover.Item, error) {
	var all []leftover.Item
	var failed error
	for _, list := range []func() ([]leftover.Item, error){s.deadBuilds, s.removedImages, s.oldBases, s.oldDownloads} {
		found, err := list()
		all, failed = append(all, found...), errors.Join(failed, err)
	}
	return all, failed
}

// deadBuilds lists what builds have left that were killed.
func (s *Store) deadBuilds() ([]leftover.Item, error) {
	entries, failed := readDir(filepath.Join(s.StateDir, ".generations"))
	var all []leftover.Item
	for _, entry := range entries {
		name := entry.Name()
		build := filepath.Join(s.generations(name), ".build")
		if checkName(name) != nil || !exists(build) || lock.IsHeld(build) {
			continue // never built here, or being built
		}
		remains, err := s.remains(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed just now
		}
		failed = errors.Join(failed, err)
		for _, path := range append(remains, box.Leftovers(boxName(name))...) {
			all = append(all, leftover.Item{
				What: "build", Path: path, Why: fmt.Sprintf("a build of image %s was killed", name),
				Remove: func(ctx context.Context) error { return s.endDead(ctx, name) },
			})
		}
	}
	return all, failed
}

// endDead removes what a killed build left, if the image is not being built now.
func (s *Store) endDead(ctx context.Context, name string) error {
	if !exists(s.generations(name)) {
		return nil
	}
	held, err := lock.TryFile(filepath.Join(s.generations(name), ".build"), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	return errors.Join(s.clean(ctx, held, name), box.RemoveLeftovers(boxName(name)))
}

// removedImages lists what is left of images that were removed while jobs ran on
// them, but for what jobs still run on, and trees of failed builds.
func (s *Store) removedImages() ([]leftover.Item, error) {
	names, failed := s.Removed()
	var all []leftover.Item
	for _, name := range names {
		build := filepath.Join(s.generations(name), ".build")
		if exists(s.failed(name)) || lock.IsHeld(build) {
			continue
		}
		generations, err := s.Generations(name)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		remove := func(ctx context.Context) error {
			if !exists(s.generations(name)) || lock.IsHeld(build) {
				return nil
			}
			_, err := s.Prune(ctx, name, KeptGenerations)
			return err
		}
		for _, generation := range generations {
			if s.InUse != nil && !s.InUse(generation.Name) {
				all = append(all, leftover.Item{
					What: "generation", Path: generation.Path, Why: fmt.Sprintf("image %s was removed, and no job runs on it any more", name), Remove: remove,
				})
			}
		}
		if len(generations) == 0 {
			all = append(all, leftover.Item{What: "image", Path: s.generations(name), Why: "it has no generations", Remove: remove})
		}
	}
	return all, failed
}

// oldBases lists the bases that no build can use.
func (s *Store) oldBases() ([]leftover.Item, error) {
	stale, err := s.bases().Stale()
	var all []leftover.Item
	for _, b := range stale {
		if b.InUse() {
			continue // being made, or copied
		}
		all = append(all, leftover.Item{
			What: "base", Path: b.Dir, Why: b.Why,
			Remove: b.Remove,
		})
	}
	return all, err
}

// oldDownloads is one leftover for all of them: there may be thousands.
func (s *Store) oldDownloads() ([]leftover.Item, error) {
	excess, err := s.downloads().Excess()
	if len(excess) == 0 {
		return nil, err
	}
	return []leftover.Item{{
		What: "downloads", Path: s.downloads().Dir, Why: fmt.Sprintf("%d files are unfinished, or too much (download_cache_max)", len(excess)),
		Remove: func(context.Context) error { return s.downloads().Prune() },
	}}, err
}
