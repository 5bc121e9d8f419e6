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

// Pruned says what a removal of images did.
type Pruned struct {
	Removed []Image `json:"removed"`
	InUse   []Image `json:"in_use"` // would be removed, but machines run on them
}

// Prune removes the images that were unused for the longest time, until those that stay take
// no more than CacheMax. Those on which machines run stay.
func (s *Store) Prune(ctx context.Context) (Pruned, error) {
	excess, err := s.excess("")
	if err != nil {
		return Pruned{}, err
	}
	return s.removeAll(ctx, excess)
}

// Remove removes the images that a name or a digest stands for, but for those on which
// machines run.
func (s *Store) Remove(ctx context.Context, written string) (Pruned, error) {
	images, err := s.meant(written)
	if err != nil {
		return Pruned{}, err
	}
	return s.removeAll(ctx, images)
}

// meant are the images of this host that a name, a digest or the beginning of one stands for.
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

// excess are the images that are too much, those that were unused for the longest time first.
// One image may stay in any case.
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

// shrink makes room beside an image that was pulled. The trees are left in the trash, which
// the next job empties.
func (s *Store) shrink(ctx context.Context, pulled string) error {
	excess, err := s.excess(pulled)
	if err != nil {
		return err
	}
	_, _, err = s.forget(ctx, excess)
	return err
}

// removeAll removes images, and their trees at once.
func (s *Store) removeAll(ctx context.Context, images []Image) (Pruned, error) {
	pruned, trash, err := s.forget(ctx, images)
	for _, path := range trash {
		err = errors.Join(err, storage.Remove(ctx, path))
	}
	return pruned, err
}

// forget moves images into the trash that no machine uses.
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

// forgetOne moves an image into the trash and says where it is then, "" if it is nowhere. The
// names that lead to it mean nothing from then on. If it is used, that is lock.ErrBusy.
func (s *Store) forgetOne(ctx context.Context, i Image) (to string, err error) {
	held, err := lock.TryDirectory(s.path(i.Digest), lock.Exclusive)
	if err != nil {
		return "", err
	}
	defer held.Close()
	// A job that held the lock before has its machine on record by now.
	if s.InUse == nil || s.InUse(i.Digest) {
		return "", lock.ErrBusy
	}
	if to, err = s.throwAway(ctx, s.path(i.Digest)); err != nil {
		return "", err
	}
	fault.Here("oci: image in the trash")
	for _, name := range i.References {
		if m, err := readJSON[meaning](s.meaningPath(name)); err == nil && m.Digest != i.Digest {
			continue // since then, it has come to mean another image
		}
		if err := os.Remove(s.meaningPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return to, err
		}
	}
	fault.Here("oci: names of an image forgotten")
	return to, nil
}

// Leftovers lists what killed pulls left, names that mean nothing, and images that are too
// much. With an error, it is what could be found out.
func (s *Store) Leftovers() ([]leftover.Item, error) {
	all, failed := s.deadPulls()
	unwritten, err := s.unwrittenNames()
	all, failed = append(all, unwritten...), errors.Join(failed, err)
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

// nameless is how long an image stays to which no name leads any more, since its tag moved, and
// that no machine uses. One that was just pulled has no name for a moment.
const nameless = time.Hour

// surplus lists images of no further use, and those that are too much.
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

// deadPulls lists what pulls left that were killed.
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

// unwrittenNames lists files whose writer was killed.
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
