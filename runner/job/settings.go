package job

import (
	"errors"
	"fmt"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
)

// Settings is the configuration with the image's own settings. An image that is
// being made for the first time, without a playbook, has none.
func (d *Driver) Settings(name string) (config.Config, error) {
	known, err := d.Images.Get(name)
	var unknown *image.UnknownError
	if errors.As(err, &unknown) {
		return d.Config, nil
	}
	if err != nil {
		return config.Config{}, err
	}
	book, err := known.ReadPlaybook()
	if err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	return d.Config.ForImage(book.Path, book.Settings)
}

// BuildSettings is Settings for an image that is about to be built: what its
// machines will want of this host must be there, or minutes of work end at its test.
func (d *Driver) BuildSettings(name string) (config.Config, error) {
	if err := gitlab.CheckImageName(name); err != nil {
		return config.Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	settings, err := d.Settings(name)
	if err != nil {
		return config.Config{}, err
	}
	if err := d.equip(&machine.Spec{}, settings); err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	if _, err := d.CheckDiskLimit(settings); err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	return settings, nil
}
