package job

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/printable"
)

// The `image:` of a job may be the name of an image in a registry. These rules say which image of
// this host it means. The first one that applies counts:
//
//  1. a name in `images` of the configuration is equal to it
//  2. an image has this name; debian:bookworm is the image bookworm
//  3. nspawn_runner_aliases of a playbook has this name
//  4. a pattern in `images` matches it; of several, the first one counts
//  5. default_image is set
//
// So names come before patterns. Playbooks are read only if rules 1 and 2 do not apply. What a job
// writes is compared with names of the administrator, and used for nothing else.

// maxWritten bounds the length of a name that a job writes, in bytes.
const maxWritten = 1024

// find returns the name of the image that a job means. If there is none, the error is the job's
// failure.
func (d *Driver) find(written string) (name string, err error) {
	if len(written) > maxWritten {
		return "", jobsFault(fmt.Errorf("the name of the image is longer than %d bytes", maxWritten))
	}
	for _, m := range d.Config.Images {
		if !m.IsPattern() && m.Fits(written) {
			return d.Meant(written, m.Image, "images")
		}
	}
	plain, unknown := gitlab.ImageName(written)
	if unknown == nil {
		_, err := d.Images.Get(plain)
		if err == nil {
			return plain, nil
		}
		if unknown = err; !isUnknown(err) {
			return "", err
		}
	}
	if written == "" {
		return d.otherwise(written, unknown, nil)
	}
	known := d.Aliases()
	for _, name := range []string{written, plain} {
		if is, err := known.Find(name); is != "" || err != nil {
			return is, err
		}
	}
	for _, m := range d.Config.Images {
		if m.IsPattern() && m.Fits(written) {
			d.sayUnread(known.Unread)
			return d.Meant(written, m.Image, fmt.Sprintf("images (%q)", m.Written))
		}
	}
	return d.otherwise(written, unknown, known.Unread)
}

// otherwise returns default_image, or an error that says which names a job can write. unknown is why
// the name that the job wrote means nothing, unread are the errors of playbooks.
func (d *Driver) otherwise(written string, unknown error, unread []error) (string, error) {
	if d.Config.DefaultImage != "" {
		d.sayUnread(unread)
		if written == "" {
			d.Note("the job names no image, so the job gets %s (default_image)", d.Config.DefaultImage)
		} else {
			d.Note("image %s: there is no such image here, so the job gets %s (default_image)", printable.Line(written), d.Config.DefaultImage)
		}
		return d.Meant(written, d.Config.DefaultImage, "default_image")
	}
	if written == "" {
		return "", jobsFault(unknown)
	}
	if !isUnknown(unknown) {
		unknown = fmt.Errorf("%w; there are: %s", unknown, cmp.Or(strings.Join(d.Images.Names(), ", "), "none"))
	}
	err := fmt.Errorf("%w; the administrator can map %s to one of them, with images in %s or nspawn_runner_aliases in a playbook",
		unknown, printable.Line(written), d.ConfigPath())
	for _, unread := range unread {
		err = fmt.Errorf("%w; aliases that cannot be read: %w", err, unread)
	}
	return "", jobsFault(err)
}

// Meant returns name, or an error if this host does not have that image. by is the setting that says that
// what a job wrote means this image.
func (d *Driver) Meant(written, name, by string) (string, error) {
	if _, err := d.Images.Get(name); err != nil {
		return "", fmt.Errorf("%s in %s: for %s: %w", by, d.ConfigPath(), cmp.Or(printable.Line(written), "no name"), err)
	}
	return name, nil
}

// sayUnread writes a warning to the job's log about each playbook that could not be read: it may have
// the alias that the job means.
func (d *Driver) sayUnread(unread []error) {
	for _, err := range unread {
		d.Note("warning: aliases that cannot be read: %v", err)
	}
}

// ConfigPath returns the path of the configuration file, which need not exist.
func (d *Driver) ConfigPath() string { return cmp.Or(d.ConfigFile, config.DefaultFile) }

func jobsFault(err error) error { return &gitlab.BuildFailure{Code: 1, Err: err} }

func isUnknown(err error) bool {
	var unknown *image.UnknownError
	return errors.As(err, &unknown)
}

// Alias is a second name of an image, and the path of the playbook that has it.
type Alias struct{ Name, Image, Playbook string }

// Aliases are those of all playbooks.
type Aliases struct {
	All    []Alias
	Unread []error // why some playbooks could not be read
}

const aliasesSetting = config.VariablePrefix + "aliases"

// Aliases reads the aliases of all images.
func (d *Driver) Aliases() (known Aliases) {
	playbooks, unread := d.playbooksWith(aliasesSetting)
	known.Unread = unread
	for _, p := range playbooks {
		for _, name := range p.settings.Aliases {
			known.All = append(known.All, Alias{name, p.Name, p.Playbook})
		}
	}
	return known
}

// Find returns the image with an alias, "" if there is none. If two images have it, that is an error.
func (a Aliases) Find(alias string) (string, error) {
	var found []Alias
	for _, one := range a.All {
		if one.Name == alias && !slices.ContainsFunc(found, func(other Alias) bool { return other.Image == one.Image }) {
			found = append(found, one)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0].Image, nil
	}
	return "", fmt.Errorf("image %s: both %s and %s have this name in nspawn_runner_aliases: remove it from one of them",
		printable.Line(alias), found[0].Playbook, found[1].Playbook)
}
