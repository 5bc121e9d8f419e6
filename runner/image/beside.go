package image

import (
	"fmt"

	"nspawn-runner/runner/image/ansible"
)

// Not each YAML file beside the playbooks is one: see ansible.Playbook. What has a chroot
// is an image whatever is in its playbook: a slip of the pen must not end its maintenance
// without a failure.

// isBeside says whether the file of an image's name is none of its own. One that cannot
// be read is for the build of the image to report.
func (i Image) isBeside() bool {
	if i.Exists || i.Playbook == "" {
		return false
	}
	book, err := ansible.ReadPlaybook(i.Playbook)
	return err == nil && book.Beside
}

// Beside lists the files in the directories of playbooks that look like playbooks by
// their names, and that no image is made of.
func (s *Store) Beside() ([]string, error) {
	_, beside, err := s.list()
	return beside, err
}

// whyForeign says that the file of an image's name is not a playbook, and why; it is empty
// if it is one, or the image has a chroot.
func (i Image) whyForeign() string {
	if i.Exists || i.Playbook == "" {
		return ""
	}
	book, err := ansible.ReadPlaybook(i.Playbook)
	if err != nil || book.Foreign == "" {
		return ""
	}
	return fmt.Sprintf("%s is not a playbook: %s", i.Playbook, book.Foreign)
}
