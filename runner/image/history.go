package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
// with the stamp to, and returns both. A second call goes back further: two
// in a row must not lead to where the first began. It waits for a build of the
// image, which would else publish over it.
func (s *Store) Rollback(ctx context.Context, name, to string) (now, was Generation, err error) {
	if was, err = s.Current(name); err != nil {
		return now, was, err
	}
	lock, err := s.lockBuild(ctx, name, false)
	if err != nil {
		return now, was, fmt.Errorf("image %s: %w", name, err)
	}
	defer lock.Close()
	if err := s.adopt(name); err != nil {
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
