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

// What a job writes behind `image:` may be meant for another executor. The first of
// these that knows it says which image it means here:
//
//  1. a name in `images` of the configuration, all of what the job writes
//  2. the image that is called so; of debian:bookworm that is bookworm
//  3. nspawn_runner_aliases of a playbook
//  4. the first pattern in `images` that fits all of what the job writes
//  5. default_image
//
// So names come before patterns, and playbooks are read only for names that nothing
// else knows. All answers are the administrator's: what a job writes is compared with
// them, and no more.

// maxWritten bounds what is compared, in bytes.
const maxWritten = 1024

// find finds the image that a job means. Where there is none, it is the job's failure.
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

// otherwise is the image of jobs whose name means none, or why there is none.
func (d *Driver) otherwise(written string, unknown error, unread []error) (string, error) {
	if d.Config.DefaultImage != "" {
		d.sayUnread(unread)
		if written == "" {
			d.Note("no image is named, so the job gets %s (default_image)", d.Config.DefaultImage)
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

// Meant is an image that the configuration names, which must be there.
func (d *Driver) Meant(written, name, by string) (string, error) {
	if _, err := d.Images.Get(name); err != nil {
		return "", fmt.Errorf("%s in %s: for %s: %w", by, d.ConfigPath(), cmp.Or(printable.Line(written), "no name"), err)
	}
	return name, nil
}

// sayUnread says in the job's log that what its name means might be in a playbook that
// cannot be read.
func (d *Driver) sayUnread(unread []error) {
	for _, err := range unread {
		d.Note("warning: aliases that cannot be read: %v", err)
	}
}

// ConfigPath is where the configuration lies, or would lie.
func (d *Driver) ConfigPath() string { return cmp.Or(d.ConfigFile, config.DefaultFile) }

func jobsFault(err error) error { return &gitlab.BuildFailure{Code: 1, Err: err} }

func isUnknown(err error) bool {
	var unknown *image.UnknownError
	return errors.As(err, &unknown)
}

// Alias is a further name of an image, and the path of the playbook that gives it.
type Alias struct{ Name, Image, Playbook string }

// Aliases are those of all playbooks that can be read.
type Aliases struct {
	All    []Alias
	Unread []error // why others cannot
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

// Find is the image with an alias, "" if there is none. That there are two is an error.
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
