package job

import (
	"bytes"
	"maps"
	"os"

	"gopkg.in/yaml.v3"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/image"
)

// playbook is an image's, of which one setting was read.
type playbook struct {
	image.Image
	settings config.Config
}

// playbooksWith reads one setting of all playbooks that have it, whatever their other settings
// are. It parses only those in which the setting's name occurs: parsing takes twenty times as long
// as reading. unread says why a playbook could not be read.
func (d *Driver) playbooksWith(setting string) (all []playbook, unread []error) {
	images, err := d.Images.List()
	if err != nil {
		return nil, []error{err}
	}
	for _, i := range images {
		text, err := os.ReadFile(i.Playbook)
		if i.Playbook == "" || err == nil && !bytes.Contains(text, []byte(setting)) {
			continue
		}
		settings, err := d.readSetting(i, setting)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		all = append(all, playbook{i, settings})
	}
	return all, unread
}

func (d *Driver) readSetting(i image.Image, wanted string) (config.Config, error) {
	book, err := i.ReadPlaybook()
	if err != nil {
		return config.Config{}, err
	}
	maps.DeleteFunc(book.Settings, func(name string, _ yaml.Node) bool { return name != wanted })
	return d.Config.ForImage(book.Path, book.Settings)
}
