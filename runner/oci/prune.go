package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// Pruned is the result of a removal of images.
type Pruned struct {
	Removed []Image `json:"removed"`
	InUse   []Image `json:"in_use"` // these stay, because machines use them
}

// Remove removes the images that a name or a digest means. Images that machines use stay.
func (s *Store) Remove(ctx context.Context, written string) (Pruned, error) {
	images, err := s.meant(written)
	if err != nil {
		return Pruned{}, err
	}
	return s.removeAll(ctx, images)
}

// meant returns the images on this host that a name, a digest or the beginning of a digest means.
func (s *Store) meant(written string) ([]Image, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	full := written
	if ref, err := s.Rules.parse(written); err == nil {
		full = ref.Name()
	}
	short := len(written) >= len("sha256:")+12
	images := slices.DeleteFunc(all, func(i Image) bool {
		return !(short && strings.HasPrefix(i.Digest, written)) && !slices.Contains(i.References, full)
	})
	if len(images) == 0 {
		return nil, fmt.Errorf("image %q: it is not on this host; image list shows those that are", written)
	}
	return images, nil
}

// excess returns the images that are to be removed so that CacheMax holds, those first that were unused for the
// longest time. The image with the digest but stays.
func (s *Store) excess(but string) ([]Image, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b Image) int { return a.Used.Compare(b.Used) })
	var whole uint64
	for _, i := range all {
		whole += i.Size
	}
	var excess []Image
	for _, i := range all {
		if whole <= s.CacheMax {
			break
		}
		if i.Digest != but {
			excess = append(excess, i)
			whole -= i.Size
		}
	}
	return excess, nil
}

// shrink moves images into the trash so that CacheMax holds after a pull. The next job empties the trash.
func (s *Store) shrink(ctx context.Context, pulled string) error {
	excess, err := s.excess(pulled)
	if err != nil {
		return err
	}
	_, _, err = s.forget(ctx, excess)
	return err
}

// removeAll removes images and their trees.
func (s *Store) removeAll(ctx context.Context, images []Image) (Pruned, error) {
	pruned, trash, err := s.forget(ctx, images)
	for _, path := range trash {
		err = errors.Join(err, storage.Remove(ctx, path))
	}
	return pruned, err
}

// forget moves images that no machine uses into the trash.
func (s *Store) forget(ctx context.Context, images []Image) (pruned Pruned, trash []string, err error) {
	pruned = Pruned{Removed: []Image{}, InUse: []Image{}}
	for _, i := range images {
		to, err := s.forgetOne(ctx, i)
		switch {
		case errors.Is(err, fs.ErrNotExist): // another removal was faster
		case errors.Is(err, lock.ErrBusy):
			pruned.InUse = append(pruned.InUse, i)
		case err != nil:
			return pruned, trash, err
		default:
			pruned.Removed = append(pruned.Removed, i)
			if to != "" {
				trash = append(trash, to)
			}
		}
	}
	return pruned, trash, nil
}

// forgetOne moves an image into the trash and returns its new path, "" if it does not exist any more. Its names
// mean nothing from then on. If the image is used, the error is lock.ErrBusy.
func (s *Store) forgetOne(ctx context.Context, i Image) (to string, err error) {
	held, err := lock.TryDirectory(s.path(i.Digest), lock.Exclusive)
	if err != nil {
		return "", err
	}
	defer held.Close()
	// A job that held the image before has its machine on record by now.
	if s.InUse == nil || s.InUse(i.Digest) {
		return "", lock.ErrBusy
	}
	if to, err = s.throwAway(ctx, s.path(i.Digest)); err != nil {
		return "", err
	}
	fault.Here("oci: image in the trash")
	for _, name := range i.References {
		if m, err := readJSON[meaning](s.meaningPath(name)); err == nil && m.Digest != i.Digest {
			continue // it means another image by now
		}
		if err := os.Remove(s.meaningPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return to, err
		}
	}
	fault.Here("oci: names of an image forgotten")
	return to, nil
}

// Leftovers lists what killed pulls and removals left, names without an image, and images that exceed CacheMax. With
// an error, the list is incomplete.
func (s *Store) Leftovers() ([]leftover.Item, error) {
	all, failed := s.deadPulls()
	for _, list := range []func() ([]leftover.Item, error){s.rests, s.unwrittenNames} {
		items, err := list()
		all, failed = append(all, items...), errors.Join(failed, err)
	}
	meanings, err := s.meanings()
	failed = errors.Join(failed, err)
	for _, m := range meanings {
		if _, here := s.meaningOf(m.Name); here {
			continue
		}
		path := s.meaningPath(m.Name)
		all = append(all, leftover.Item{What: "name", Path: path, Why: "its image is gone", Remove: func(context.Context) error {
			if _, here := s.meaningOf(m.Name); here {
				return nil
			}
			return os.Remove(path)
		}})
	}
	images, err := s.surplus()
	return append(all, images...), errors.Join(failed, err)
}

// nameless is how long an image without a name stays that no machine uses. Its tag has moved, or it was pulled a
// moment ago and gets its name soon.
const nameless = time.Hour

// surplus lists images without a name, and images that exceed CacheMax.
func (s *Store) surplus() (all []leftover.Item, err error) {
	images, err := s.List()
	why := map[string]string{}
	for _, i := range images {
		if len(i.References) == 0 && time.Since(i.Used) > nameless {
			why[i.Digest] = "of a registry, and no name leads to it any more"
		}
	}
	excess, failed := s.excess("")
	for _, i := range excess {
		why[i.Digest] = "of a registry, and more is kept than oci_cache_max allows"
	}
	for _, i := range images {
		if why[i.Digest] == "" || s.InUse == nil || s.InUse(i.Digest) {
			continue
		}
		all = append(all, leftover.Item{What: "image", Path: s.path(i.Digest), Why: why[i.Digest], Remove: func(ctx context.Context) error {
			_, err := s.removeAll(ctx, []Image{i})
			return err
		}})
	}
	return all, errors.Join(err, failed)
}

// deadPulls lists what killed pulls left.
func (s *Store) deadPulls() (all []leftover.Item, err error) {
	entries, err := os.ReadDir(s.pulls())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	seen := map[string]bool{}
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".lock")
		path := filepath.Join(s.pulls(), name)
		if seen[name] || lock.IsHeld(path+".lock") {
			continue
		}
		seen[name] = true
		all = append(all, leftover.Item{What: "pull", Path: path, Why: "it was killed", Remove: func(ctx context.Context) error {
			held, err := lock.TryFile(path+".lock", lock.Exclusive)
			if errors.Is(err, lock.ErrBusy) {
				return nil
			}
			if err != nil {
				return err
			}
			defer held.Close()
			return errors.Join(storage.Remove(ctx, path), os.Remove(held.Name()))
		}})
	}
	return all, err
}

// rests lists what killed removals left of images.
func (s *Store) rests() (all []leftover.Item, err error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, entry := range entries {
		digest := strings.Replace(entry.Name(), "-", ":", 1)
		if !wellFormed.MatchString(entry.Name()) {
			continue
		}
		if _, err := s.readRecord(digest); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		all = append(all, leftover.Item{
			What: "image", Path: s.path(digest), Why: "its removal was killed",
			Remove: func(ctx context.Context) error { return s.removeRest(ctx, digest) },
		})
	}
	return all, err
}

// unwrittenNames lists incomplete files whose writers were killed.
func (s *Store) unwrittenNames() (all []leftover.Item, err error) {
	entries, err := os.ReadDir(s.names())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !isTemporary(entry) || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		path := filepath.Join(s.names(), entry.Name())
		all = append(all, leftover.Item{What: "file", Path: path, Why: "its writer was killed", Remove: func(context.Context) error { return os.Remove(path) }})
	}
	return all, err
}
