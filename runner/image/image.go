// Package image keeps the images that jobs run in.
//
// An image is a name, as in a job's `image: bookworm`. Two things can stand
// behind it: a chroot, which is a Debian tree in the state directory, and a
// playbook, which says how that tree is made. Most images have both; an image
// with only a playbook is still to be built, one with only a chroot was made by
// hand.
//
//	/etc/nspawn-runner/NAME.yaml            playbook
//	/var/lib/nspawn-runner/
//	    NAME -> .generations/NAME/STAMP     the chroot that new jobs get
//	    .generations/NAME/STAMP/            one generation: a whole tree
//	    .generations/NAME/.failed/          the tree of a build that failed last
//	    .logs/NAME-STAMP.log                what its build printed
//	    .downloads/                         packages, for the next builds
//	    .bases/                             trees of bootstraps, for the next images
//
// A chroot that was published is never written to again, because jobs are
// running on it. Every change (creation, maintenance, an administrator's shell)
// builds another generation beside it and, when that is complete and machines
// boot from it, swaps the link NAME, in one rename. A build that fails, for
// whatever reason and at whatever moment, publishes nothing; its tree stays only
// if its playbook or its test failed, for an administrator to look at.
//
// A build is a source, a change, a test and a publication (build.go). The source makes the
// first tree: a bootstrap of Debian, or a copy of the current generation (source.go). The
// change is a playbook's (play.go) or an administrator's.
//
// The packages below do the work, and know nothing of images and generations: debian makes
// and reads trees of Debian, ansible runs playbooks, box runs commands in a tree,
// downloads sees to it that nothing is downloaded twice, and build is what the steps share.
//
// Where to read on: operations.go has what callers ask for, generation.go the life of a
// generation, history.go how older ones come back, prune.go how they go, remains.go and
// leftover.go what is left of a killed build, failed.go what becomes of trees that are no
// good, adopt.go the chroots of the Python original.
package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/spelling"
)

// Image is a name with a chroot, a playbook, or both.
type Image struct {
	Name     string
	Path     string // of the chroot, whether it exists or not
	Playbook string // path of the playbook, empty if there is none
	Exists   bool   // there is a chroot
}

// ReadPlaybook reads the image's playbook. Without one it is empty.
func (i Image) ReadPlaybook() (ansible.Playbook, error) {
	if i.Playbook == "" {
		return ansible.Playbook{}, nil
	}
	return ansible.ReadPlaybook(i.Playbook)
}

// playbookSuffixes in the order in which they are tried.
var playbookSuffixes = []string{".yaml", ".yml"}

// List returns all images, chroots and playbooks together, sorted by name.
func (s *Store) List() ([]Image, error) {
	images, _, err := s.list()
	return images, err
}

// Names lists the names of all images; of a directory that cannot be read there are none.
func (s *Store) Names() []string {
	images, _ := s.List()
	var names []string
	for _, image := range images {
		names = append(names, image.Name)
	}
	return names
}

// list also returns the files that only have names of playbooks.
func (s *Store) list() (images []Image, beside []string, err error) {
	var names []string
	entries, err := readDir(s.StateDir)
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	for _, entry := range entries {
		// lost+found is there when the state directory is a file system.
		if entry.Name() != "lost+found" && isDir(filepath.Join(s.StateDir, entry.Name())) {
			names = append(names, entry.Name())
		}
	}
	for _, dir := range s.PlaybookDirs {
		entries, err := readDir(dir)
		if err != nil {
			return nil, nil, fmt.Errorf("list images: %w", err)
		}
		for _, entry := range entries {
			suffix := filepath.Ext(entry.Name())
			if !entry.IsDir() && slices.Contains(playbookSuffixes, suffix) {
				names = append(names, strings.TrimSuffix(entry.Name(), suffix))
			}
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if checkName(name) != nil {
			continue
		}
		if image := s.lookUp(name); image.isBeside() {
			beside = append(beside, image.Playbook)
		} else {
			images = append(images, image)
		}
	}
	return images, beside, nil
}

// Get returns the image called name. If there is neither a chroot nor a
// playbook of that name, the error is an *UnknownError.
func (s *Store) Get(name string) (Image, error) {
	if err := checkName(name); err != nil {
		return Image{}, err
	}
	image := s.lookUp(name)
	foreign := image.whyForeign()
	if foreign == "" && (image.Exists || image.Playbook != "") {
		return image, nil
	}
	images, err := s.List()
	if err != nil {
		return Image{}, err
	}
	unknown := &UnknownError{Name: name, Foreign: foreign}
	for _, image := range images {
		unknown.Known = append(unknown.Known, image.Name)
	}
	spelling.Sort(unknown.Known, name)
	return Image{}, unknown
}

// lookUp finds what stands behind a name.
func (s *Store) lookUp(name string) Image {
	image := Image{Name: name, Path: filepath.Join(s.StateDir, name)}
	image.Exists = isDir(image.Path)
	for _, dir := range s.PlaybookDirs {
		for _, suffix := range playbookSuffixes {
			path := filepath.Join(dir, name+suffix)
			// A dangling link counts: that it cannot be read is an error to
			// report, not a playbook to overlook.
			if info, err := os.Lstat(path); err == nil && !info.IsDir() {
				image.Playbook = path
				return image
			}
		}
	}
	return image
}

// checkName refuses names that would lead out of the state directory or to its
// own entries, which begin with a dot. Callers have stricter rules.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("image name: empty")
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("image name %q: must not contain a slash or NUL", name)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("image name %q: must not begin with a dot or a dash", name)
	}
	return nil
}

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
