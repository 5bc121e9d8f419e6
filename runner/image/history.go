package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// Generations returns the generations of an image that were published and are
// still there, the newest first. An image without a chroot has none, unless it
// was removed while jobs ran on it.
func (s *Store) Generations(name string) ([]Generation, error) {
	current, err := s.Current(name)
	var unknown *UnknownError
	removed := errors.As(err, &unknown) && exists(s.generations(name))
	if err != nil && !errors.Is(err, ErrNoChroot) && !removed {
		return nil, err
	}
	entries, err := readDir(s.generations(name))
	if err != nil {
		return nil, fmt.Errorf("image %s: list its generations: %w", name, err)
	}
	unfinished := s.unfinished(name)
	var all []Generation
	for _, entry := range entries {
		stamp := entry.Name()
		if stamp[0] == '.' || !entry.IsDir() || name+"/"+stamp == current.Name {
			continue
		}
		if stamp != unfinished {
			all = append(all, Generation{Name: name + "/" + stamp, Path: filepath.Join(s.generations(name), stamp)})
		}
	}
	if current.Name != "" { // it may still be a plain directory elsewhere
		all = append(all, current)
	}
	slices.SortFunc(all, func(a, b Generation) int { return cmp.Compare(b.Name, a.Name) })
	return all, nil
}

// unfinished is the stamp of the generation that is being built, if one is.
func (s *Store) unfinished(name string) string {
	text, _ := os.ReadFile(filepath.Join(s.generations(name), ".build"))
	stamp, _, _ := strings.Cut(string(text), "\n")
	return stamp
}

// ErrNothingOlder is the cause when there is no generation to roll back to.
var ErrNothingOlder = errors.New("there is no older generation to go back to")

// Previous returns the generation that was current before this one. That is
// what its record says; where there is none, the next older one.
func (s *Store) Previous(name string, generation Generation) (Generation, error) {
	all, err := s.Generations(name)
	if err != nil {
		return Generation{}, err
	}
	record, err := s.Record(generation)
	if err != nil {
		return Generation{}, err
	}
	if record.Format > 0 && record.Replaced == "" {
		return Generation{}, fmt.Errorf("image %s: %w", name, ErrNothingOlder)
	}
	for _, other := range all {
		if other.Name == record.Replaced || other.Name < cmp.Or(record.Replaced, generation.Name) {
			return other, nil
		}
	}
	return Generation{}, fmt.Errorf("image %s: %w", name, ErrNothingOlder)
}

// Rollback makes the generation before the current one current again, or that
// with the stamp to, and returns both. A second time it goes back further: who
// does it twice in a row must not be where he was. It waits for a build of the
// image, which would else publish over it.
func (s *Store) Rollback(ctx context.Context, name, to string) (now, was Generation, err error) {
	if was, err = s.Current(name); err != nil {
		return now, was, err
	}
	lock, err := s.lockBuild(ctx, name)
	if err != nil {
		return now, was, fmt.Errorf("image %s: %w", name, err)
	}
	defer lock.Close()
	if _, err := s.adopt(name); err != nil {
		return now, was, fmt.Errorf("image %s: %w", name, err)
	}
	if was, err = s.Current(name); err != nil {
		return now, was, err
	}
	if to == "" {
		now, err = s.Previous(name, was)
	} else {
		now, err = s.find(name, to)
	}
	if err != nil || now == was {
		return now, was, err
	}
	if err := Check(now.Path); err != nil {
		return now, was, fmt.Errorf("image %s: %w", name, err)
	}
	if err := s.swap(name, now); err != nil {
		return now, was, fmt.Errorf("image %s: roll back to generation %s: %w", name, now.Name, err)
	}
	return now, was, nil
}

// find returns the generation with a stamp; NAME/STAMP is understood too.
func (s *Store) find(name, stamp string) (Generation, error) {
	all, err := s.Generations(name)
	if err != nil {
		return Generation{}, err
	}
	var known []string
	for _, generation := range all {
		if generation.Name == name+"/"+stamp || generation.Name == stamp {
			return generation, nil
		}
		known = append(known, filepath.Base(generation.Name))
	}
	return Generation{}, fmt.Errorf("image %s: there is no generation %q; there are: %s", name, stamp, strings.Join(known, ", "))
}

// lockBuild locks out builds of an image and removes what a killed one left: the
// stamp in the file .build must not outlive a change of the link, or the next
// build takes a published generation for an unfinished one.
func (s *Store) lockBuild(ctx context.Context, name string) (*os.File, error) {
	lock, err := s.lock(ctx, name, ".build", lock.Exclusive, func() error {
		s.note(name, "wait for "+s.builder(name)+" to end")
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.clean(context.WithoutCancel(ctx), lock, name); err != nil {
		lock.Close()
		return nil, fmt.Errorf("remove what a killed build left: %w", err)
	}
	return lock, nil
}

// Pruned says what a removal of generations did.
type Pruned struct {
	Removed []string `json:"removed"` // names of generations
	InUse   []string `json:"in_use"`  // would be removed, but machines run on them
	Failed  bool     `json:"failed"`  // the tree of a failed build was removed
}

// KeptGenerations is how many generations stay when nobody says: the current one
// and the one to roll back to.
const KeptGenerations = 2

// Prune removes all generations of an image but the current one, the keep-1 that
// were current before it, and those on which machines run. Of an image that was
// removed, none is kept, and of none the tree of a failed build.
func (s *Store) Prune(ctx context.Context, name string, keep int) (Pruned, error) {
	if keep < 1 {
		return Pruned{}, fmt.Errorf("prune image %s: keep %d generations: the current one always stays", name, keep)
	}
	if _, err := s.Generations(name); err != nil { // before a directory is made for it
		return Pruned{}, err
	}
	return s.removeGenerations(ctx, name, keep, func() error { return nil })
}

// Remove removes an image's chroot: its name, and all of its generations but
// those on which machines run. These go with a later Prune. The playbook stays.
func (s *Store) Remove(ctx context.Context, name string) (Pruned, error) {
	if _, err := s.Current(name); err != nil {
		return Pruned{}, err
	}
	return s.removeGenerations(ctx, name, 0, func() error {
		if _, err := s.adopt(name); err != nil {
			return err
		}
		err := os.Remove(filepath.Join(s.StateDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another removal was faster
		}
		fault.Here("image: name removed")
		return errors.Join(err, flush(s.StateDir, unix.Fsync))
	})
}

// removeGenerations does something to an image's name, and then removes generations, while
// no build goes on and no job starts.
func (s *Store) removeGenerations(ctx context.Context, name string, keep int, first func() error) (pruned Pruned, err error) {
	lock, err := s.lockBuild(ctx, name)
	if err != nil {
		return Pruned{}, fmt.Errorf("image %s: %w", name, err)
	}
	defer lock.Close()
	pruned, err = s.prune(ctx, name, keep, first)
	if errors.Is(err, errImpatient) {
		err = fmt.Errorf("jobs keep starting on it, try again: %w", err)
	}
	if err = errors.Join(err, s.removeEmpty(context.WithoutCancel(ctx), name)); err != nil {
		err = fmt.Errorf("image %s: remove generations: %w", name, err)
	}
	return pruned, err
}

// prune removes generations, and calls first before it looks which. It needs the
// lock .build, and takes the lock .hold, which keeps a generation from being put
// on record meanwhile. If jobs keep starting all the time, it is errImpatient.
func (s *Store) prune(ctx context.Context, name string, keep int, first func() error) (Pruned, error) {
	patient, cancel := context.WithTimeoutCause(ctx, prunePatience, errImpatient)
	defer cancel()
	lock, err := s.lock(patient, name, ".hold", lock.Exclusive, nil)
	if err != nil {
		return Pruned{}, err
	}
	pruned, trash := Pruned{}, []string(nil)
	if err = first(); err == nil {
		pruned, trash, err = s.discard(ctx, name, keep)
	}
	lock.Close() // the slow part needs no lock
	fault.Here("image: old generations forgotten")
	for _, path := range trash {
		err = errors.Join(err, storage.Remove(ctx, path))
	}
	return pruned, err
}

// discard moves what prune is to remove into the trash.
func (s *Store) discard(ctx context.Context, name string, keep int) (pruned Pruned, moved []string, err error) {
	pruned = Pruned{Removed: []string{}, InUse: []string{}}
	throw := func(path, as string) error {
		trash := filepath.Join(s.StateDir, ".trash")
		to := filepath.Join(trash, strings.ReplaceAll(as, "/", "-"))
		err := os.MkdirAll(trash, 0o700)
		if err == nil {
			err = storage.Remove(ctx, to) // of a prune that was killed
		}
		if err == nil {
			err = os.Rename(path, to)
		}
		if errors.Is(err, unix.ENOSPC) {
			// A full disk, for which this is the remedy, allows no more than to
			// remove it where it is.
			return storage.Remove(ctx, path)
		}
		if err != nil {
			return err
		}
		fault.Here("image: old generation in the trash")
		moved = append(moved, to)
		return nil
	}
	if exists(s.failed(name)) {
		if err := throw(s.failed(name), name+"/failed"); err != nil {
			return pruned, moved, err
		}
		pruned.Failed = true
	}
	if s.InUse == nil { // nobody knows: it may be all of them
		return pruned, moved, nil
	}
	all, err := s.Generations(name)
	if err != nil {
		return pruned, moved, err
	}
	kept, err := s.kept(name, keep)
	if err != nil {
		return pruned, moved, err
	}
	for _, generation := range slices.Backward(all) { // the oldest first
		if slices.Contains(kept, generation) {
			continue
		}
		if s.InUse(generation.Name) {
			pruned.InUse = append(pruned.InUse, generation.Name)
			continue
		}
		if err := throw(generation.Path, generation.Name); err != nil {
			return pruned, moved, err
		}
		pruned.Removed = append(pruned.Removed, generation.Name)
		if err := s.removeRecord(generation.Name); err != nil {
			return pruned, moved, err
		}
	}
	return pruned, moved, nil
}

// kept returns the current generation and those that were current before it, up
// to a number. Of an image without a chroot it is none.
func (s *Store) kept(name string, number int) ([]Generation, error) {
	if !s.lookUp(name).Exists {
		return nil, nil
	}
	generation, err := s.Current(name)
	if err != nil {
		return nil, err
	}
	kept := []Generation{generation}
	for len(kept) < number {
		generation, err = s.Previous(name, generation)
		if errors.Is(err, ErrNothingOlder) {
			break
		}
		if err != nil {
			return nil, err
		}
		if slices.Contains(kept, generation) {
			break // records written by hand
		}
		kept = append(kept, generation)
	}
	return kept, nil
}

// Removed returns the names of images that have no chroot, but generations or a
// failed tree: they were removed while jobs ran on them, or their creation failed.
func (s *Store) Removed() ([]string, error) {
	entries, err := readDir(filepath.Join(s.StateDir, ".generations"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); entry.IsDir() && checkName(name) == nil && !s.lookUp(name).Exists {
			names = append(names, name)
		}
	}
	return names, nil
}
