package runner

import "context"

// checkNames looks for names of images that mean none, or two.
func (h *Host) checkNames(context.Context) []Finding {
	var all []Finding
	meanings := map[string]string{}
	for _, m := range h.Config.Images {
		meanings[m.Written] = m.Image
		if _, err := h.meant(m.Written, m.Image, "images"); err != nil {
			all = append(all, isBad("correct it, or make that image", "%v", err)...)
		}
	}
	if name := h.Config.DefaultImage; name != "" {
		if _, err := h.meant("", name, "default_image"); err != nil {
			all = append(all, isBad("correct it, or make that image", "%v", err)...)
		}
	}
	known := h.readAliases() // which of them cannot be read, checkPlaybooks says
	for _, one := range known.all {
		if _, err := known.find(one.alias); err != nil {
			all = append(all, isBad("jobs that write it fail", "%v", err)...)
		}
		if _, err := h.images().Get(one.alias); err == nil && one.alias != one.image {
			all = append(all, isWarning("correct nspawn_runner_aliases in "+one.playbook, "%s is an image of its own, so it does not mean %s", one.alias, one.image)...)
		}
		if other := meanings[one.alias]; other != "" && other != one.image {
			all = append(all, isWarning("correct images in "+h.configPath()+", or nspawn_runner_aliases in "+one.playbook,
				"%s means %s, as the configuration says, and not %s", one.alias, other, one.image)...)
		}
	}
	if all == nil {
		return isGood("%d in the configuration, %d in playbooks", len(h.Config.Images), len(known.all))
	}
	return all
}
