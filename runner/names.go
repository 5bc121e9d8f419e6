package runner

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

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
func (h *Host) find(written string) (name string, err error) {
	if len(written) > maxWritten {
		return "", jobsFault(fmt.Errorf("the name of the image is longer than %d bytes", maxWritten))
	}
	for _, m := range h.Config.Images {
		if !m.IsPattern() && m.Fits(written) {
			return h.meant(written, m.Image, "images")
		}
	}
	plain, unknown := gitlab.ImageName(written)
	if unknown == nil {
		_, err := h.images().Get(plain)
		if err == nil {
			return plain, nil
		}
		if unknown = err; !isUnknown(err) {
			return "", err
		}
	}
	if written == "" {
		return h.otherwise(written, unknown, nil)
	}
	known := h.readAliases()
	for _, name := range []string{written, plain} {
		if is, err := known.find(name); is != "" || err != nil {
			return is, err
		}
	}
	for _, m := range h.Config.Images {
		if m.IsPattern() && m.Fits(written) {
			h.sayUnread(known.unread)
			return h.meant(written, m.Image, fmt.Sprintf("images (%q)", m.Written))
		}
	}
	return h.otherwise(written, unknown, known.unread)
}

// otherwise is the image of jobs whose name means none, or why there is none.
func (h *Host) otherwise(written string, unknown error, unread []error) (string, error) {
	if h.Config.DefaultImage != "" {
		h.sayUnread(unread)
		h.note("image %s: there is no such image here, so the job gets %s (default_image)", cmp.Or(printable.Line(written), "(none)"), h.Config.DefaultImage)
		return h.meant(written, h.Config.DefaultImage, "default_image")
	}
	if written == "" {
		return "", jobsFault(unknown)
	}
	if !isUnknown(unknown) {
		unknown = fmt.Errorf("%w; there are: %s", unknown, cmp.Or(strings.Join(h.ImageNames(), ", "), "none"))
	}
	err := fmt.Errorf("%w; to let jobs write %s for one of them, the administrator adds it to images in %s, or to nspawn_runner_aliases in a playbook",
		unknown, printable.Line(written), h.configPath())
	for _, unread := range unread {
		err = fmt.Errorf("%w; aliases that cannot be read: %w", err, unread)
	}
	return "", jobsFault(err)
}

// meant is an image that the configuration names, which must be there.
func (h *Host) meant(written, name, by string) (string, error) {
	if _, err := h.images().Get(name); err != nil {
		return "", fmt.Errorf("%s in %s: for %s: %w", by, h.configPath(), cmp.Or(printable.Line(written), "no name"), err)
	}
	return name, nil
}

// sayUnread says in the job's log that what its name means might be in a playbook that
// cannot be read.
func (h *Host) sayUnread(unread []error) {
	for _, err := range unread {
		h.note("warning: aliases that cannot be read: %v", err)
	}
}

// configPath is where the configuration lies, or would lie.
func (h *Host) configPath() string { return cmp.Or(h.configFile, config.DefaultFile) }

func jobsFault(err error) error { return &gitlab.BuildFailure{Code: 1, Err: err} }

func isUnknown(err error) bool {
	var unknown *image.UnknownError
	return errors.As(err, &unknown)
}

// aliased is an image with one of its further names.
type aliased struct{ alias, image, playbook string }

// aliases are those of all playbooks that can be read.
type aliases struct {
	all    []aliased
	unread []error // why others cannot
}

const aliasesSetting = config.VariablePrefix + "aliases"

// readAliases reads all playbooks, but only those that have the word in them as YAML, which
// takes twenty times as long.
func (h *Host) readAliases() aliases {
	images, err := h.images().List()
	if err != nil {
		return aliases{unread: []error{err}}
	}
	var known aliases
	for _, i := range images {
		text, err := os.ReadFile(i.Playbook)
		if i.Playbook == "" || err == nil && !bytes.Contains(text, []byte(aliasesSetting)) {
			continue
		}
		names, err := h.aliasesOf(i)
		if err != nil {
			known.unread = append(known.unread, err)
		}
		for _, name := range names {
			known.all = append(known.all, aliased{name, i.Name, i.Playbook})
		}
	}
	return known
}

// aliasesOf reads the aliases of one playbook, whatever its other settings are.
func (h *Host) aliasesOf(i image.Image) ([]string, error) {
	book, err := i.ReadPlaybook()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(book.Settings, func(name string, _ yaml.Node) bool { return name != aliasesSetting })
	settings, err := h.Config.ForImage(book.Path, book.Settings)
	return settings.Aliases, err
}

// find is the image with an alias, "" if there is none. That there are two is an error.
func (a aliases) find(alias string) (string, error) {
	var found []aliased
	for _, one := range a.all {
		if one.alias == alias && !slices.ContainsFunc(found, func(other aliased) bool { return other.image == one.image }) {
			found = append(found, one)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0].image, nil
	}
	return "", fmt.Errorf("image %s: both %s and %s have this name in nspawn_runner_aliases: remove it from one of them",
		printable.Line(alias), found[0].playbook, found[1].playbook)
}
