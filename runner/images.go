package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
)

// ChrootCreate makes the chroot of an image that has none: of a suite, ""
// for what its playbook says, else unstable.
func (h *Host) ChrootCreate(ctx context.Context, name, suite string) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	generation, err := h.images().Create(ctx, name, image.CreateOptions{Suite: suite})
	if err != nil {
		return err
	}
	h.say("%s: created, generation %s", name, generation.Name)
	return nil
}

// needImages is asked before images are changed.
func (h *Host) needImages(names ...string) error {
	for _, name := range names {
		if err := gitlab.CheckImageName(name); err != nil {
			return fmt.Errorf("image %q: %w", name, err)
		}
	}
	if err := needRoot(); err != nil {
		return err
	}
	return h.makeStateDir()
}

func (h *Host) printJSON(value any) error {
	out := json.NewEncoder(h.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(value)
}

// errDiscard makes an edited copy go away without being a failure.
var errDiscard = errors.New("discarded")

// ChrootLogin opens a shell in a copy of an image's chroot, and publishes the
// copy when the shell ends with 0, unless discard is set.
func (h *Host) ChrootLogin(ctx context.Context, name string, discard bool) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	store := h.images()
	if discard {
		h.say("%s: a shell in a copy of the chroot; what you change is thrown away", name)
	} else {
		h.say("%s: a shell in a copy of the chroot; 'exit' publishes what you change, 'exit 1' throws it away", name)
	}
	generation, err := store.Edit(ctx, name, func(ctx context.Context, root string) error {
		if err := store.Shell(ctx, root, h.Stdin, h.Stdout, h.Stderr); err != nil && !discard {
			return err
		}
		if discard {
			return errDiscard
		}
		return nil
	})
	switch {
	case errors.Is(err, errDiscard):
		h.say("%s: thrown away, as you asked", name)
		return nil
	case err != nil:
		return fmt.Errorf("%w; what you changed is thrown away", err)
	}
	h.say("%s: published, generation %s", name, generation.Name)
	return nil
}

// ChrootMaintenance runs an image's playbook, "" for all images, and creates
// what is missing. It goes on after a failure.
func (h *Host) ChrootMaintenance(ctx context.Context, only string) error {
	names := []string{only}
	if only == "" {
		images, err := h.images().List()
		if err != nil {
			return err
		}
		names = nil
		for _, i := range images {
			if i.Playbook == "" {
				h.say("%s: no playbook, so nothing to maintain", i.Name)
				continue
			}
			names = append(names, i.Name)
		}
		if len(names) == 0 {
			h.say("no playbooks in %s or %s", h.Config.PlaybookDir, h.Config.StateDir)
			return h.needImages()
		}
	}
	if err := h.needImages(names...); err != nil {
		return err
	}
	var failed []string
	for _, name := range names {
		generation, published, err := h.maintain(ctx, name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if only != "" {
				return err
			}
			h.say("%v", err)
			failed = append(failed, name)
			continue
		}
		if published {
			h.say("%s: published, generation %s", name, generation.Name)
		} else {
			h.say("%s: up to date, generation %s stays", name, generation.Name)
		}
	}
	if only == "" {
		h.pruneRemoved(ctx)
	}
	if len(failed) > 0 {
		return fmt.Errorf("maintenance of %d of %d images failed: %q", len(failed), len(names), failed)
	}
	return nil
}

// maintain checks an image's settings before it spends minutes on it.
func (h *Host) maintain(ctx context.Context, name string) (generation image.Generation, published bool, err error) {
	if _, err := h.imageConfig(name); err != nil {
		return image.Generation{}, false, err
	}
	return h.images().Maintain(ctx, name)
}

// NameOf is the name of the image that an administrator means: the one given,
// else the job's, else the default.
func (h *Host) NameOf(given, otherwise string) (string, error) {
	for _, reference := range []string{given, h.Env("CUSTOM_ENV_CI_JOB_IMAGE"), otherwise} {
		if reference != "" {
			return gitlab.ImageName(reference)
		}
	}
	return "", errors.New("which image? Name one, or give --default-image")
}

// ImageNames lists the names of all images.
func (h *Host) ImageNames() []string {
	images, _ := h.images().List()
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names
}
