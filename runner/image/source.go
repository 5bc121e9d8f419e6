package image

import (
	"context"

	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/storage"
)

// source is what the tree of a generation is made of, before it is changed: a bootstrap
// of Debian (debian.Source), or the current generation (copied).
type source interface {
	// Size is how many bytes the tree will take on disk, and whether that is known.
	Size(context.Context) (bytes int64, known bool, err error)
	// Fill makes the tree at the build's root, which does not exist.
	Fill(context.Context, *build.Build) error
	// Save is called once while the tree is as Fill left it. The source may save a copy
	// for later builds. An error becomes a note only.
	Save(context.Context, *build.Build)
	// Close ends the use of the source, also after an error.
	Close()
}

// copied is a source that copies a generation.
type copied struct{ from Generation }

// Size is what a copy takes on this file system: nothing where the copy shares blocks.
func (c copied) Size(ctx context.Context) (bytes int64, known bool, err error) {
	bytes, err = storage.CloneCost(ctx, c.from.Path)
	return bytes, true, err
}

// Fill copies the generation.
func (c copied) Fill(ctx context.Context, b *build.Build) error {
	return b.Step(ctx, "copy the current generation", func() error {
		return storage.Clone(ctx, c.from.Path, b.Root)
	})
}

// Save saves nothing: the generation itself is there.
func (c copied) Save(context.Context, *build.Build) {}

// Close has nothing to end.
func (c copied) Close() {}
