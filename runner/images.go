package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
)

// ChrootCreate makes the chroot of an image that has none: of a suite, ""
// for what its playbook says, else unstable.
func (h *Host) ChrootCreate(ctx context.Context, name, suite string) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	if suite != "" {
		if err := config.CheckSuite(suite); err != nil {
			return err
		}
	}
	settings, err := h.buildConfig(name)
	if err != nil {
		return err
	}
	made := bootstrap(settings)
	made.Suite = cmp.Or(suite, made.Suite)
	show := h.showProgress(false)
	defer show.close()
	store := h.images()
	store.Progress = show.tell
	generation, err := store.Create(ctx, name, image.CreateOptions{Bootstrap: made, Booted: settings.Build == buildBooted})
	show.close()
	if err != nil {
		return err
	}
	h.say("%s: created, generation %s", name, generation.Name)
	return nil
}

// bootstrap is what an image is made of, by its settings.
func bootstrap(c config.Config) image.Bootstrap {
	return image.Bootstrap{
		Suite: c.ChrootSuite, Mirror: c.Mirror, Components: c.Components, Keyring: c.Keyring,
		Include: c.Include, Variant: c.Variant, Program: c.Bootstrap,
		Security: c.SecurityMirror, NoUpdates: !c.Updates, AnyAge: !c.CheckValidUntil,
	}
}

// buildConfig is imageConfig for an image that is about to be built: what its
// machines will want of this host must be there, or minutes of work end at its test.
func (h *Host) buildConfig(name string) (config.Config, error) {
	if err := gitlab.CheckImageName(name); err != nil {
		return config.Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	settings, err := h.imageConfig(name)
	if err != nil {
		return config.Config{}, err
	}
	if err := h.wantOfHost(&machine.Spec{}, settings); err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	if _, err := h.checkDiskLimit(settings); err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	return settings, nil
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
	if _, err := store.Current(name); err != nil {
		return err
	}
	if _, err := h.imageConfig(name); err != nil { // which would be found out in the end
		return err
	}
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
	var kept *image.KeptError
	switch {
	case errors.As(err, &kept):
		return err
	case errors.Is(err, errDiscard):
		h.say("%s: thrown away, as you asked", name)
		return nil
	case err != nil:
		return fmt.Errorf("%w; what you changed is thrown away", err)
	}
	h.say("%s: published, generation %s", name, generation.Name)
	return nil
}

// ChrootLoginFailed opens a shell in the tree of an image's last failed build.
// What it changes stays there, and is never published.
func (h *Host) ChrootLoginFailed(ctx context.Context, name string) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	store := h.images()
	return store.Inspect(ctx, name, func(ctx context.Context, root string) error {
		h.say("%s: a shell in %s, the tree of the build that failed; nothing of it is ever published", name, root)
		err := store.Shell(ctx, root, h.Stdin, h.Stdout, h.Stderr)
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
