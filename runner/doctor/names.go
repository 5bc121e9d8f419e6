package doctor

import "context"

// checkNames looks for names of images and services that mean none, or two.
func (d Doctor) checkNames(context.Context) []Finding {
	var all []Finding
	meanings := map[string]string{}
	for _, m := range d.Jobs.Config.Images {
		meanings[m.Written] = m.Image
		if _, err := d.Jobs.Meant(m.Written, m.Image, "images"); err != nil {
			all = append(all, isBad("correct the name, or create the image", "%v", err)...)
		}
	}
	for _, m := range d.Jobs.Config.Services {
		if _, err := d.Jobs.Meant(m.Written, m.Image, "services"); err != nil {
			all = append(all, isBad("correct it, or make that image", "%v", err)...)
		}
	}
	if name := d.Jobs.Config.DefaultImage; name != "" {
		if _, err := d.Jobs.Meant("", name, "default_image"); err != nil {
			all = append(all, isBad("correct the name, or create the image", "%v", err)...)
		}
	}
	known := d.Jobs.Aliases() // which of them cannot be read, checkPlaybooks says
	for _, one := range known.All {
		if _, err := known.Find(one.Name); err != nil {
			all = append(all, isBad("jobs that use the name fail", "%v", err)...)
		}
		if _, err := d.Jobs.Images.Get(one.Name); err == nil && one.Name != one.Image {
			all = append(all, isWarning("correct nspawn_runner_aliases in "+one.Playbook, "%s is an image of its own, so it does not mean %s", one.Name, one.Image)...)
		}
		if other := meanings[one.Name]; other != "" && other != one.Image {
			all = append(all, isWarning("correct images in "+d.Jobs.ConfigPath()+", or nspawn_runner_aliases in "+one.Playbook,
				"%s means %s, as the configuration says, and not %s", one.Name, other, one.Image)...)
		}
	}
	if all == nil {
		return isGood("%d in the configuration, %d in playbooks", len(d.Jobs.Config.Images), len(known.All))
	}
	return all
}
