package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
)

// ErrNoChroot is the cause when an image has a playbook but no chroot yet.
var ErrNoChroot = errors.New("it has a playbook but no chroot yet: create it with chroot-create or chroot-maintenance")

// Current returns the published generation of an image. It may be replaced and,
// later, removed at any time: see Hold.
func (s *Store) Current(name string) (Generation, error) {
	image, err := s.Get(name)
	if err != nil {
		return Generation{}, err
	}
	if !image.Exists {
		return Generation{}, fmt.Errorf("image %s: %w", name, ErrNoChroot)
	}
	path, err := filepath.EvalSymlinks(image.Path)
	if err != nil {
		return Generation{}, fmt.Errorf("image %s: find the current generation: %w", name, err)
	}
	target, err := os.Readlink(image.Path)
	if err != nil || filepath.Dir(target) != filepath.Join(".generations", name) {
		return Generation{Name: name + "/" + s.adoptedStamp(name), Path: path}, nil
	}
	return Generation{Name: name + "/" + filepath.Base(target), Path: path}, nil
}

// Hold returns the published generation of an image and keeps all generations
// of this image from being removed until release is called. By then the
// generation's name must be where InUse finds it.
func (s *Store) Hold(ctx context.Context, name string) (generation Generation, release func(), err error) {
	// Look before making a directory for an image that does not exist.
	if _, err := s.Current(name); err != nil {
		return Generation{}, nil, err
	}
	lock, err := s.lock(ctx, name, ".hold", lock.Shared, nil)
	if err != nil {
		return Generation{}, nil, fmt.Errorf("image %s: %w", name, err)
	}
	generation, err = s.Current(name)
	if err != nil {
		lock.Close()
		return Generation{}, nil, err
	}
	return generation, func() { lock.Close() }, nil
}

// begin names the generation that is to be built, and writes that into the
// locked .build file. It must be on disk before the tree is.
func (s *Store) begin(lock *os.File, name string) (Generation, error) {
	entries, err := os.ReadDir(s.generations(name))
	if err != nil {
		return Generation{}, err
	}
	born := time.Now().UTC()
	for _, entry := range entries {
		// Later than all others, even if the clock was set back.
		if other, err := time.Parse(stampFormat, entry.Name()); err == nil && !born.Truncate(time.Second).After(other) {
			born = other.Add(time.Second)
		}
	}
	stamp := born.Format(stampFormat)
	if _, err := lock.WriteAt(fmt.Appendf(nil, "%s\n%d\n", stamp, os.Getpid()), 0); err != nil {
		return Generation{}, err
	}
	fault.Here("image: generation named")
	return Generation{Name: name + "/" + stamp, Path: filepath.Join(s.generations(name), stamp)}, lock.Sync()
}

// removeEmpty removes the directory of an image that has no chroot, no generation and no failed
// tree, such as after a bootstrap that failed. The caller must hold the lock .build, whose file goes
// last: from then on, another build may use the directory, and it stays.
func (s *Store) removeEmpty(name string) error {
	if exists(filepath.Join(s.StateDir, name)) {
		return nil
	}
	dir := s.generations(name)
	entries, err := readDir(dir)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
		return nil
	}
	hold, err := lock.TryFile(filepath.Join(dir, ".hold"), lock.Exclusive)
	if errors.Is(err, lock.ErrBusy) {
		return nil // a job looks for the image, and will not find it
	}
	if err != nil {
		return err
	}
	defer hold.Close()
	for _, entry := range entries {
		if entry.Name() != ".build" && entry.Name() != ".hold" {
			err = errors.Join(err, removeFile(filepath.Join(dir, entry.Name())))
		}
	}
	err = errors.Join(err, removeFile(hold.Name()), removeFile(filepath.Join(dir, ".build")))
	fault.Here("image: locks of an empty image removed")
	if rmErr := removeFile(dir); !errors.Is(rmErr, unix.ENOTEMPTY) {
		err = errors.Join(err, rmErr)
	}
	return err
}

// removeFile removes a file that need not exist.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// publish makes a complete generation the one that new jobs get.
func (s *Store) publish(name string, generation Generation, record Record) error {
	if err := s.writeRecord(generation, record); err != nil {
		return err
	}
	// What is swapped in must be whole on disk before the swap is: after a
	// power cut the link leads to the old tree or to the new one.
	fault.Here("image: record written")
	if err := flush(generation.Path, unix.Syncfs); err != nil {
		return err
	}
	fault.Here("image: generation on disk")
	return s.swap(name, generation)
}

// swap makes the link NAME lead to a generation, in one step.
func (s *Store) swap(name string, generation Generation) error {
	public := filepath.Join(s.StateDir, name)
	target, err := filepath.Rel(s.StateDir, generation.Path)
	if err != nil {
		return err
	}
	// Not renameio.Symlink: its temporary directory would lie among the images, and
	// after a kill nothing would say whose it was.
	next := filepath.Join(s.generations(name), ".next")
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	fault.Here("image: link to be renamed made")
	if err := os.Rename(next, public); err != nil {
		return err
	}
	fault.Here("image: swapped")
	return errors.Join(flush(s.StateDir, unix.Fsync), flush(s.generations(name), unix.Fsync))
}
