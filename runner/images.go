package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/image/debian"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/statedir"
)

// Create makes the chroot of an image that has none: of a suite, "" for what its
// playbook says, else unstable. It returns the generation's name.
func (h *Host) Create(ctx context.Context, name, suite string) (generation string, err error) {
	if err := h.needImages(name); err != nil {
		return "", err
	}
	if suite != "" {
		if err := config.CheckSuite(suite); err != nil {
			return "", err
		}
	}
	settings, err := h.Jobs.BuildSettings(name)
	if err != nil {
		return "", err
	}
	made := bootstrap(settings)
	made.Suite = cmp.Or(suite, made.Suite)
	created, err := h.images.Create(ctx, name, image.CreateOptions{Bootstrap: made, Booted: settings.Build == job.BuildBooted})
	return created.Name, err
}

// bootstrap is what an image is made of, by its settings.
func bootstrap(c config.Config) debian.Bootstrap {
	return debian.Bootstrap{
		Suite: c.ChrootSuite, Mirror: c.Mirror, Components: c.Components, Keyring: c.Keyring,
		Include: c.Include, Variant: c.Variant, Program: c.Bootstrap,
		Security: c.SecurityMirror, NoUpdates: !c.Updates, AnyAge: !c.CheckValidUntil,
	}
}

// needImages is asked before images are changed.
func (h *Host) needImages(names ...string) error {
	for _, name := range names {
		if err := gitlab.CheckImageName(name); err != nil {
			return fmt.Errorf("image %q: %w", name, err)
		}
	}
	if err := host.NeedRoot(); err != nil {
		return err
	}
	return statedir.Make(h.config.StateDir)
}

// ErrDiscarded says that an edited copy was thrown away, as wanted.
var ErrDiscarded = errors.New("discarded")

// Edit opens a shell in a copy of an image's chroot, and publishes the copy when the
// shell ends with 0: it returns the name of that generation. With discard, and if the
// shell ended with 0 or not, the copy is thrown away, and the error is ErrDiscarded.
func (h *Host) Edit(ctx context.Context, name string, discard bool, streams Streams) (generation string, err error) {
	if err := h.needImages(name); err != nil {
		return "", err
	}
	store := h.images
	if _, err := store.Current(name); err != nil {
		return "", err
	}
	if _, err := h.Jobs.Settings(name); err != nil { // which would be found out in the end
		return "", err
	}
	if discard {
		h.noteOf(name, "a shell in a copy of the chroot; your changes will be discarded")
	} else {
		h.noteOf(name, "a shell in a copy of the chroot; 'exit' publishes your changes, 'exit 1' discards them")
	}
	edited, err := store.Edit(ctx, name, func(ctx context.Context, root string) error {
		if err := store.Shell(ctx, root, streams.In, streams.Out, streams.Err); err != nil && !discard {
			return err
		}
		if discard {
			return ErrDiscarded
		}
		return nil
	})
	var kept *image.KeptError
	switch {
	case errors.Is(err, ErrDiscarded):
		return "", ErrDiscarded
	case err != nil && !errors.As(err, &kept):
		return "", fmt.Errorf("%w; your changes were discarded", err)
	}
	return edited.Name, err
}

// Inspect opens a shell in the tree of an image's last failed build. What it changes
// stays there, and is never published.
func (h *Host) Inspect(ctx context.Context, name string, streams Streams) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	store := h.images
	return store.Inspect(ctx, name, func(ctx context.Context, root string) error {
		h.noteOf(name, "a shell in %s, the tree of the failed build; it is never published", root)
		err := store.Shell(ctx, root, streams.In, streams.Out, streams.Err)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil // of the last command that was typed
		}
		return err
	})
}

// NameOf is the name of the image that an administrator means: the one given,
// else the job's, else the default.
func (h *Host) NameOf(given, otherwise string) (string, error) {
	for _, reference := range []string{given, h.env("CUSTOM_ENV_CI_JOB_IMAGE"), otherwise} {
		if reference != "" {
			return gitlab.ImageName(reference)
		}
	}
	return "", errors.New("which image? Name one, or give --default-image")
}

// ImageNames lists the names of all images.
func (h *Host) ImageNames() []string { return h.images.Names() }

// GenerationNames lists the generations of an image that can be rolled back to, the newest
// first, by their names in it. There are none if they cannot be read.
func (h *Host) GenerationNames(image string) (names []string) {
	if gitlab.CheckImageName(image) != nil {
		return nil
	}
	all, err := h.images.Generations(image)
	if err != nil {
		return nil
	}
	for _, generation := range all {
		names = append(names, filepath.Base(generation.Name))
	}
	return names
}
