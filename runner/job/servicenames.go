package job

import (
	"fmt"
	"strings"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/printable"
)

// What a job writes behind `services:` is the name of an image in a registry. The first of
// these that knows it says which image of this host is the service:
//
//  1. a name in `services` of the configuration
//  2. the first pattern there that fits
//  3. a name in nspawn_runner_service of a playbook
//  4. a pattern there that fits
//  5. the image in the registry, if oci_images of the configuration allows it
//
// No other image of this host is a service, whatever it is called: that of the job's own machine
// would make a bad one. A name without a tag has the tag latest.

const serviceSetting = config.VariablePrefix + "service"

// findService finds the image of a service, "" for that in the registry. Where there is none, it
// is the job's failure.
func (d *Driver) findService(written string) (name string, err error) {
	if len(written) > maxWritten {
		return "", jobsFault(fmt.Errorf("the name of a service is longer than %d bytes", maxWritten))
	}
	fits := func(p config.Pattern, pattern bool) bool {
		return p.IsPattern() == pattern && (p.Fits(written) || p.Fits(gitlab.Tagged(written)))
	}
	for _, pattern := range []bool{false, true} {
		for _, m := range d.Config.Services {
			if fits(m.Pattern, pattern) {
				return d.Meant(written, m.Image, "services")
			}
		}
	}
	offers, unread := d.offers()
	for _, pattern := range []bool{false, true} {
		var found []offer
		for _, o := range offers {
			if fits(o.Pattern, pattern) && (len(found) == 0 || found[0].Image != o.Image) {
				found = append(found, o)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			d.sayUnread(unread)
			return found[0].Image, nil
		}
		return "", fmt.Errorf("service %s: both %s and %s stand for it (%s): write to services in %s which one does",
			printable.Line(written), found[0].Playbook, found[1].Playbook, serviceSetting, d.ConfigPath())
	}
	if d.pulls(written) {
		d.sayUnread(unread)
		return "", nil
	}
	return "", jobsFault(d.unknownService(written, offers, unread))
}

// unknownService says what a job can write, and who can change that.
func (d *Driver) unknownService(written string, offers []offer, unread []error) error {
	var known []string
	for _, m := range d.Config.Services {
		known = append(known, m.Written)
	}
	for _, o := range offers {
		known = append(known, o.Written)
	}
	there := "no image of this host stands for any service"
	if known != nil {
		there = "there are: " + strings.Join(known, ", ")
	}
	err := fmt.Errorf("service %s: no image of this host stands for it, and it is not pulled from a registry (oci_images); %s; "+
		"to let jobs have it, the administrator adds it to services or to oci_images in %s, or to %s in a playbook",
		printable.Line(written), there, d.ConfigPath(), serviceSetting)
	for _, unread := range unread {
		err = fmt.Errorf("%w; a playbook that cannot be read: %w", err, unread)
	}
	return err
}

// offer is a name or a pattern of services that the playbook of an image says it stands for.
type offer struct {
	config.Pattern
	Image, Playbook string
}

// offers reads the services of all images.
func (d *Driver) offers() (all []offer, unread []error) {
	playbooks, unread := d.playbooksWith(serviceSetting)
	for _, book := range playbooks {
		for _, p := range book.settings.Service {
			all = append(all, offer{p, book.Name, book.Playbook})
		}
	}
	return all, unread
}
