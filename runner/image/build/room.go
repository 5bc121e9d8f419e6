package build

import (
	"fmt"
	"strings"

	"nspawn-runner/runner/size"
	"nspawn-runner/runner/storage"
)

// SpareRoom is how much room, in bytes, there must be beside a tree: for what a playbook
// may add, and for running jobs.
const SpareRoom = 200 << 20

// noSpace is how the kernel's word for a full disk ends, in everybody's spelling.
const noSpace = "o space left on device"

// LacksRoom says whether something failed because the disk is full: by its error,
// or in the words of a program of the build.
func (b *Build) LacksRoom(err error) bool {
	return strings.Contains(err.Error(), noSpace) || b.Log.Mentions(noSpace)
}

// sayRoom adds to the error of something that failed because the disk is full how
// much is there. It may have been another one that was: the memory for a bootstrap.
func (b *Build) sayRoom(err error) error {
	free, freeErr := storage.Free(b.StateDir)
	if freeErr != nil || free > SpareRoom {
		return err
	}
	if !strings.Contains(err.Error(), noSpace) {
		err = fmt.Errorf("%w: n%s", err, noSpace)
	}
	return fmt.Errorf("%w; %s has %s free; 'nspawn-runner gc' and chroot-prune make room", err, b.StateDir, size.MiB(free))
}
