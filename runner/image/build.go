package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/debian"
)

// A build is a source, which makes a tree; a change of it, by a playbook or a login; a
// test; and the publication.

// plan says how a generation is made.
type plan struct {
	record Record // what is known of the generation before it is made
	source source
	// shown are directories of the host that commands see, read-only: mirrors.
	shown []string
	// change changes the tree that the source made.
	change func(context.Context, *draft) error
	// untouched says that change does not touch the tree: a playbook has no plays.
	untouched bool
	// unlessUnchanged publishes nothing if the change left the tree as the current
	// generation is.
	unlessUnchanged bool
}

// fromNothing plans a generation that is a new Debian.
func (s *Store) fromNothing(o debian.Bootstrap, book ansible.Playbook, booted bool) plan {
	o.Suite = cmp.Or(o.Suite, debian.DefaultSuite)
	return plan{
		record: Record{How: byBootstrap, Suite: o.Suite},
		source: &debian.Source{Bootstrap: o, Bases: s.bases()},
		shown:  o.MirrorPaths(),
		change: playing(book, booted), untouched: !book.HasPlays(),
	}
}

// fromCurrent plans a generation that begins as a copy of the current one.
func (s *Store) fromCurrent(current Generation, how string) (plan, error) {
	record, err := s.Record(current)
	if err != nil {
		return plan{}, err
	}
	return plan{
		record: Record{How: how, Suite: record.Suite, Playbook: record.Playbook, Maintained: record.Maintained},
		source: copied{current},
	}, nil
}

// build makes a generation of an image, and publishes it if machines boot from it. Else
// nothing of it stays, or its tree is kept as a failed one. decide plans it, under the
// image's lock. If a plan leads to nothing new, build returns the current generation.
func (s *Store) build(ctx context.Context, name string, noWait bool, decide func(current Generation) (plan, error)) (_ Generation, _ Outcome, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("image %s: %w", name, err)
		}
	}()
	held, err := s.lockBuild(ctx, name, noWait)
	if err != nil {
		return Generation{}, "", err
	}
	defer held.Close()
	if err := s.adopt(name); err != nil {
		return Generation{}, "", err
	}
	generation, err := s.begin(held, name)
	if err != nil {
		return Generation{}, "", fmt.Errorf("begin a generation: %w", err)
	}
	defer func() {
		always := context.WithoutCancel(ctx) // for a cancelled build too
		if cleanErr := errors.Join(s.clean(always, held, name), s.removeEmpty(name), s.bases().Prune(always)); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up after the build: %w", cleanErr))
		}
	}()
	log, err := s.openLog(generation)
	if err != nil {
		return Generation{}, "", fmt.Errorf("begin a log: %w", err)
	}
	defer log.Close()

	d := &draft{store: s, generation: generation, Build: &build.Build{
		Image: name, Tree: box.Tree{Root: generation.Path, Hostname: hostname(name), Name: boxName(name)},
		StateDir: s.StateDir, Environment: s.Environment, Downloads: s.downloads(), Log: log, Colours: s.Colours, Progress: s.Progress,
	}}
	if s.lookUp(name).Exists {
		if d.current, err = s.Current(name); err != nil {
			return Generation{}, "", err
		}
	}
	p, err := decide(d.current)
	if err != nil {
		return Generation{}, "", err
	}
	return d.make(ctx, p)
}

// make does what the plan says.
func (d *draft) make(ctx context.Context, p plan) (Generation, Outcome, error) {
	defer p.source.Close()
	d.record, d.Shown = p.record, p.shown
	if err := d.needRoom(ctx, p.source); err != nil {
		return Generation{}, "", err
	}
	if err := p.source.Fill(ctx, d.Build); err != nil {
		return Generation{}, "", err
	}
	if !p.untouched {
		p.source.Save(ctx, d.Build)
	}
	if err := p.change(ctx, d); err != nil {
		return Generation{}, "", d.keepIfSuspect(ctx, err)
	}
	if p.unlessUnchanged && d.isUnchanged() {
		if err := d.store.noteMaintained(d.current, d.record); err != nil {
			return Generation{}, "", err
		}
		return d.current, Unchanged, d.pruneOld(ctx, Unchanged)
	}
	flushed := flushAhead(d.Root)
	if err := d.test(ctx); err != nil {
		return Generation{}, "", d.keepIfSuspect(ctx, err)
	}
	if err := d.publish(ctx, flushed); err != nil {
		return Generation{}, "", err
	}
	if p.untouched {
		// Saved only now: on a file system without copy-on-write, publishing would have
		// to flush the copy too.
		p.source.Save(ctx, d.Build)
	}
	return d.generation, Published, d.pruneOld(ctx, Published)
}

// boxName is the name of an image's boxes. Images may share a host name, but not this: a build
// would be refused, or taken for the leftover of another one.
func boxName(image string) string {
	name := "build-" + hostname(image)
	if hostname(image) == image && len(name) <= 64 {
		return name
	}
	return fmt.Sprintf("%.55s-%x", name, sha256.Sum256([]byte(image)))[:min(len(name), 55)+9]
}

// hostname makes a host name of an image's name.
func hostname(image string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, image)
	return cmp.Or(strings.Trim(name[:min(len(name), 63)], "-"), "localhost")
}
