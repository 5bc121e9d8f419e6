package job

import (
	"fmt"
	"strings"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/printable"
)

// The `services:` of a job are names of images in registries. These rules say which image is the
// service. The first one that applies counts:
//
//  1. a name in `services` of the configuration is equal to it
//  2. a pattern in `services` matches it; of several, the first one counts
//  3. a name in nspawn_runner_service of a playbook is equal to it
//  4. a pattern in nspawn_runner_service matches it
//  5. oci_images of the configuration allows the image of the registry
//
// No other image of this host is a service, whatever its name: an image for the scripts of jobs may
// not have the server. A name without a tag has the tag latest.

const serviceSetting = config.VariablePrefix + "service"

// findService returns the name of the image of a service, "" for the image of the registry. If there
// is none, the error is the job's failure.
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
		return "", fmt.Errorf("service %s: both %s and %s stand for it (%s): choose one of them with services in %s",
			printable.Line(written), found[0].Playbook, found[1].Playbook, serviceSetting, d.ConfigPath())
	}
	if d.pulls(written) {
		d.sayUnread(unread)
		return "", nil
	}
	return "", jobsFault(d.unknownService(written, offers, unread))
}

// unknownService is the error for a service that no image is: it says which names a job can write,
// and how the administrator can add more.
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
		"the administrator can add it to services or oci_images in %s, or to %s in a playbook",
		printable.Line(written), there, d.ConfigPath(), serviceSetting)
	for _, unread := range unread {
		err = fmt.Errorf("%w; a playbook that cannot be read: %w", err, unread)
	}
	return err
}

// offer is a name or a pattern in nspawn_runner_service of a playbook: its image is these services.
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
