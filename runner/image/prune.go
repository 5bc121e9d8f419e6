package image

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

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// Pruned says what a removal of generations did.
type Pruned struct {
	Removed []string `json:"removed"` // names of generations
	InUse   []string `json:"in_use"`  // would be removed, but machines run on them
	Failed  bool     `json:"failed"`  // the tree of a failed build was removed
}

// KeptGenerations is how many generations stay by default: the current one and
// the one to roll back to.
const KeptGenerations = 2

// Prune removes all generations of an image but the current one, the keep-1 that
// were current before it, and those on which machines run. Of an image that was
// removed, none stays. The tree of a failed build goes in any case.
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
		if err := s.adopt(name); err != nil {
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

// removeGenerations calls before, which may remove the image's name, and then removes
// generations, while no build goes on and no job starts.
func (s *Store) removeGenerations(ctx context.Context, name string, keep int, before func() error) (pruned Pruned, err error) {
	held, err := s.lockBuild(ctx, name, false)
	if err != nil {
		return Pruned{}, fmt.Errorf("image %s: %w", name, err)
	}
	defer held.Close()
	pruned, err = s.prune(ctx, name, keep, before)
	if errors.Is(err, errImpatient) {
		err = fmt.Errorf("jobs keep starting on it, try again: %w", err)
	}
	if err = errors.Join(err, s.removeEmpty(name)); err != nil {
		err = fmt.Errorf("image %s: remove generations: %w", name, err)
	}
	return pruned, err
}

// prunePatience is how long prune waits for jobs that are about to start.
var prunePatience = 5 * time.Second

var errImpatient = errors.New("it took too long")

// prune removes generations, and calls before ahead of looking which. It needs the
// lock .build, and takes the lock .hold, which keeps a generation from being put
// on record meanwhile. If jobs keep starting all the time, it is errImpatient.
func (s *Store) prune(ctx context.Context, name string, keep int, before func() error) (Pruned, error) {
	patient, cancel := context.WithTimeoutCause(ctx, prunePatience, errImpatient)
	defer cancel()
	held, err := s.lock(patient, name, ".hold", lock.Exclusive, nil)
	if err != nil {
		return Pruned{}, err
	}
	pruned, trash := Pruned{}, []string(nil)
	if err = before(); err == nil {
		pruned, trash, err = s.discard(ctx, name, keep)
	}
	held.Close() // the slow part needs no lock
	fault.Here("image: old generations forgotten")
	for _, path := range trash {
		err = errors.Join(err, storage.Remove(ctx, path))
	}
	return pruned, err
}

// discard moves what prune is to remove into the trash.
func (s *Store) discard(ctx context.Context, name string, keep int) (pruned Pruned, moved []string, err error) {
	pruned = Pruned{Removed: []string{}, InUse: []string{}}
	if exists(s.failed(name)) {
		if err := s.throwAway(ctx, s.failed(name), name+"/failed", &moved); err != nil {
			return pruned, moved, err
		}
		pruned.Failed = true
	}
	if s.InUse == nil { // it is not known: it may be all of them
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
		if err := s.throwAway(ctx, generation.Path, generation.Name, &moved); err != nil {
			return pruned, moved, err
		}
		pruned.Removed = append(pruned.Removed, generation.Name)
		if err := s.removeRecord(generation.Name); err != nil {
			return pruned, moved, err
		}
	}
	return pruned, moved, nil
}

// throwAway moves a tree into the trash, under another name, and adds to moved where it
// is then.
func (s *Store) throwAway(ctx context.Context, path, as string, moved *[]string) error {
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
		// A full disk, for which this is the remedy.
		return removeInPlace(ctx, path)
	}
	if err != nil {
		return err
	}
	fault.Here("image: old generation in the trash")
	*moved = append(*moved, to)
	return nil
}

// removeFailed removes the failed tree of an image. It needs the lock .build.
func (s *Store) removeFailed(ctx context.Context, name string) error {
	var moved []string
	err := s.throwAway(ctx, s.failed(name), name+"/failed", &moved) // in one step: see keepFailed
	for _, path := range moved {
		err = errors.Join(err, storage.Remove(ctx, path))
	}
	return err
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
