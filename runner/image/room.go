package image

import (
	"context"
	"fmt"
	"path/filepath"

	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/size"
	"nspawn-runner/runner/storage"
)

// A build that fills the disk fails late, and takes the jobs of the host with it:
// it does not begin without room for what it is going to write.

// firstRoom is for an image of which no size is known yet, in bytes: seen were 330 MB for
// a minbase of sid, before any playbook.
const firstRoom = 500 << 20

// needRoom fails if the state directory lacks room for a tree of the source.
func (d *draft) needRoom(ctx context.Context, from source) error {
	need, known, err := from.Size(ctx)
	switch {
	case err != nil || known:
	case d.current != (Generation{}): // it will be about as large
		need, err = storage.Usage(ctx, d.current.Path)
	default:
		need = firstRoom
	}
	if err != nil {
		return err
	}
	need += build.SpareRoom
	free, err := storage.Free(filepath.Dir(d.Root))
	if err != nil {
		return err
	}
	if free < need && isDir(d.store.failed(d.Image)) {
		// The failed tree is worth less than this build.
		if err := d.store.removeFailed(ctx, d.Image); err != nil {
			return err
		}
		if free, err = storage.Free(filepath.Dir(d.Root)); err != nil {
			return err
		}
	}
	if free < need {
		return fmt.Errorf("no room for another generation: it needs %s, and %s has %s free; chroot-prune removes old ones",
			size.MiB(need), d.StateDir, size.MiB(free))
	}
	return nil
}
