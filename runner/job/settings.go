package job

import (
	"errors"
	"fmt"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/image"
)

// Settings returns the configuration with the settings of an image's playbook. An image that does not
// exist yet and has no playbook has no settings of its own.
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
