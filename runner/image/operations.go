package image

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/debian"
)

// CreateOptions are what a caller can say about an image that is created.
type CreateOptions struct {
	// Bootstrap is what the tree is made of.
	Bootstrap debian.Bootstrap
	// Booted says that the playbook runs in the generation while it is booted.
	Booted bool
}

// Create builds the first generation of an image from nothing: a bootstrap of
// the suite, then the playbook, if there is one. It is an error if the image
// has a chroot already.
func (s *Store) Create(ctx context.Context, name string, options CreateOptions) (Generation, error) {
	if err := checkName(name); err != nil {
		return Generation{}, err
	}
	book, err := s.runnable(s.lookUp(name), options.Booted)
	if err != nil {
		return Generation{}, err
	}
	generation, _, err := s.build(ctx, name, false, func(Generation) (plan, error) {
		// Only now, under the lock, will the answer stay true.
		if image := s.lookUp(name); image.Exists {
			return plan{}, fmt.Errorf("%s exists already; chroot-maintenance updates it", image.Path)
		}
		return s.fromNothing(options.Bootstrap, book, options.Booted), nil
	})
	return generation, err
}

// MaintainOptions are what a caller can say about a maintenance.
type MaintainOptions struct {
	// Bootstrap is what an image is made of that has no chroot, or is recreated.
	// Without a suite that is an error.
	Bootstrap debian.Bootstrap
	// Booted says that the playbook runs in the generation while it is booted.
	Booted bool
	// Recreate builds from scratch.
	Recreate bool
	// IfOlder leaves alone what a playbook made or maintained less than this
	// time ago, unless the playbook is another one now.
	IfOlder time.Duration
	// NoWait makes it a *BusyError if the image is being built by another one.
	NoWait bool
}

// Maintain brings an image up to date with its playbook: it is created if it
// has no chroot, built from scratch if the options say so, and else the playbook
// runs in a copy of the current generation. It returns the generation that is current then.
func (s *Store) Maintain(ctx context.Context, name string, options MaintainOptions) (Generation, Outcome, error) {
	image, err := s.Get(name)
	if err != nil {
		return Generation{}, "", err
	}
	if image.Playbook == "" {
		return Generation{}, "", fmt.Errorf("image %s: it has no playbook in %s", name, strings.Join(s.PlaybookDirs, " or "))
	}
	book, err := s.runnable(image, options.Booted)
	if err != nil {
		return Generation{}, "", err
	}
	if options.IfOlder > 0 {
		if generation, fresh := s.fresh(name, book, options.IfOlder); fresh {
			return generation, Fresh, nil
		}
	}
	return s.build(ctx, name, options.NoWait, func(current Generation) (plan, error) {
		if current != (Generation{}) && !options.Recreate {
			p, err := s.fromCurrent(current, byMaintenance)
			if wanted := options.Bootstrap.Suite; p.record.OtherSuite(wanted) {
				s.note(name, fmt.Sprintf("warning: the image was made of %s and stays so; 'nspawn-runner chroot-maintenance --recreate %s' makes it of %s, as its playbook says", p.record.Suite, name, wanted))
			}
			p.shown, p.unlessUnchanged = options.Bootstrap.MirrorPaths(), true
			p.change = playing(book, options.Booted)
			return p, err
		}
		// A user looks on at chroot-create. A timer must not guess what an image called
		// bookworm is made of.
		if options.Bootstrap.Suite == "" {
			return plan{}, fmt.Errorf("playbook %s: nspawn_runner_chroot_suite is missing, so the image cannot be created: set it in the vars of the first play, as in nspawn_runner_chroot_suite: trixie", book.Path)
		}
		return s.fromNothing(options.Bootstrap, book, options.Booted), nil
	})
}

// fresh says whether the playbook as it is ran through less than a time ago.
func (s *Store) fresh(name string, book ansible.Playbook, than time.Duration) (Generation, bool) {
	current, err := s.Current(name)
	if err != nil {
		return Generation{}, false
	}
	record, err := s.Record(current)
	if err != nil || record.Playbook == nil || record.Playbook.SHA256 != book.SHA256 {
		return Generation{}, false
	}
	age := time.Since(record.Maintained)
	return current, age >= 0 && age < than // unless the clock was set back
}

// Edit publishes what change makes of a copy of the current generation, whose
// root it is given. If change returns an error, the copy is thrown away and the
// error is Edit's.
func (s *Store) Edit(ctx context.Context, name string, change func(ctx context.Context, root string) error) (Generation, error) {
	if _, err := s.Current(name); err != nil {
		return Generation{}, err
	}
	generation, _, err := s.build(ctx, name, false, func(current Generation) (plan, error) {
		p, err := s.fromCurrent(current, byLogin)
		p.change = func(ctx context.Context, d *draft) error { return change(ctx, d.Root) }
		return p, err
	})
	return generation, err
}

// Shell runs root's login shell in the tree at root, the copy that Edit made.
// An exit status of the shell other than 0 is an *exec.ExitError.
func (s *Store) Shell(ctx context.Context, root string, stdin io.Reader, stdout, stderr io.Writer) error {
	image := filepath.Base(filepath.Dir(root)) // .generations/IMAGE/STAMP
	return box.Tree{Root: root, Hostname: hostname(image), Name: boxName(image)}.Shell(ctx, s.Environment, stdin, stdout, stderr)
}

// runnable reads the playbook of an image that is about to be built, and looks
// for what it takes to run it: minutes of work must not end at a program that was
// missing all along.
func (s *Store) runnable(image Image, booted bool) (ansible.Playbook, error) {
	book, err := image.ReadPlaybook()
	if err != nil {
		return ansible.Playbook{}, err
	}
	if book.Foreign != "" {
		return ansible.Playbook{}, fmt.Errorf("image %s: %s is not a playbook: %s", image.Name, book.Path, book.Foreign)
	}
	for _, warning := range book.Warnings {
		s.note(image.Name, "warning: "+warning)
	}
	if book.Elsewhere != "" {
		return ansible.Playbook{}, fmt.Errorf("playbook %s: %s", book.Path, book.Elsewhere)
	}
	if book.HasPlays() {
		if _, err := exec.LookPath("ansible-playbook"); err != nil {
			return ansible.Playbook{}, fmt.Errorf("playbook %s: there is no ansible-playbook to run it: apt-get install ansible-core", book.Path)
		}
		if booted && s.Boot == nil {
			return ansible.Playbook{}, fmt.Errorf("playbook %s: build: booted needs a host that systemd runs; use build: unbooted", book.Path)
		}
	}
	return book, nil
}
