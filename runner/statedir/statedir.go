// Package statedir knows the state directory: what of it lies where, and what it must be
// like.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Directories in it.
const (
	Generations = ".generations" // of images
	Machines    = ".machines"    // a directory for each machine
	Trash       = ".trash"       // what is being removed
	Cache       = ".cache"       // the caches of jobs
	Downloads   = ".downloads"   // what builds have downloaded
	Metrics     = ".metrics"     // what is counted for metrics
	OCI         = ".oci"         // images of registries
)

// Make makes the state directory, closed to everybody but root, since files in it belong
// to jobs and may be setuid.
func Make(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return OneFileSystem(dir)
}

// OneFileSystem looks at the parts of the state directory between which trees are moved
// by renaming.
func OneFileSystem(dir string) error {
	var first string
	var device uint64
	for _, name := range []string{Generations, Machines, Trash, OCI} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		dev := info.Sys().(*syscall.Stat_t).Dev
		if first == "" {
			first, device = path, dev
		} else if dev != device {
			return fmt.Errorf("state directory: %s and %s lie on different file systems; they must lie on one", first, path)
		}
	}
	return nil
}
