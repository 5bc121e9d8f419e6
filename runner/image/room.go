package image

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"nspawn-runner/runner/storage"
)

// A build that fills the disk fails late, and takes the jobs of the host with it:
// it does not begin without room for what it is going to write.
const (
	// spareRoom is what a playbook may add, and running jobs want: in bytes.
	spareRoom = 200 << 20
	// firstRoom is for an image of which no size is known yet: seen were 330 MB
	// for a minbase of sid, before any playbook.
	firstRoom = 500 << 20
)

// noSpace is how the kernel's word for a full disk ends, in everybody's spelling.
const noSpace = "o space left on device"

// lacksRoom says whether something failed because the disk is full: by its error,
// or in the words of a program of the build.
func (b *build) lacksRoom(err error) bool {
	return strings.Contains(err.Error(), noSpace) || b.log.mentions(noSpace)
}

// sayRoom adds to the error of something that failed because the disk is full how
// much is there. It may have been another one that was: the memory for a bootstrap.
func (s *Store) sayRoom(err error) error {
	free, freeErr := storage.Free(s.StateDir)
	if freeErr != nil || free > spareRoom {
		return err
	}
	if !strings.Contains(err.Error(), noSpace) {
		err = fmt.Errorf("%w: n%s", err, noSpace)
	}
	return fmt.Errorf("%w; %s has %d MB free; 'nspawn-runner gc' and chroot-prune make room", err, s.StateDir, free/1e6)
}

// needRoom fails if the state directory lacks room for another tree. copied is
// the tree that is to be copied, "" for one that is built from nothing.
func (b *build) needRoom(ctx context.Context, copied string) (err error) {
	need := int64(firstRoom)
	switch {
	case copied != "":
		need, err = storage.CloneCost(ctx, copied)
	case b.base.Path != "":
		need, err = storage.Usage(ctx, b.base.Path)
	}
	if err != nil {
		return err
	}
	need += spareRoom
	free, err := storage.Free(filepath.Dir(b.generation.Path))
	if err != nil {
		return err
	}
	if failed := b.store.failed(b.image); free < need && isDir(failed) {
		// What somebody may want to look at is worth less than this build.
		if err := storage.Remove(ctx, failed); err != nil {
			return err
		}
		if free, err = storage.Free(filepath.Dir(b.generation.Path)); err != nil {
			return err
		}
	}
	if free < need {
		return fmt.Errorf("no room for another generation: it needs %d MB, and %s has %d MB free; chroot-prune removes old ones",
			need/1e6, b.store.StateDir, free/1e6)
	}
	return nil
}
