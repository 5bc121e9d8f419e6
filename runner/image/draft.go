package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/debian"
	"nspawn-runner/runner/image/downloads"
	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
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

// draft is a generation in the making.
type draft struct {
	*build.Build
	store      *Store
	generation Generation
	current    Generation // the published one when the build began, if there was one
	adopted    bool       // current was a chroot of the Python original until now
	record     Record     // of generation
	tally      ansible.Tally
	// suspect says that the image's own programs have run in the tree: if the build
	// fails now, the reason is to be found there.
	suspect bool
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
	held, err := s.lock(ctx, name, ".build", lock.Exclusive, func() error {
		if noWait {
			return &BusyError{By: s.builder(name)}
		}
		s.note(name, "wait for "+s.builder(name)+" to end")
		return nil
	})
	if err != nil {
		return Generation{}, "", err
	}
	defer held.Close()

	// Cleaning up is done for a cancelled build too.
	always := context.WithoutCancel(ctx)
	if err := s.clean(always, held, name); err != nil {
		return Generation{}, "", fmt.Errorf("remove what a killed build left: %w", err)
	}
	adopted, err := s.adopt(name)
	if err != nil {
		return Generation{}, "", err
	}
	generation, err := s.begin(held, name)
	if err != nil {
		return Generation{}, "", fmt.Errorf("begin a generation: %w", err)
	}
	defer func() {
		if cleanErr := errors.Join(s.clean(always, held, name), s.removeEmpty(always, name), s.bases().Prune(always)); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up after the build: %w", cleanErr))
		}
	}()
	log, err := s.openLog(generation)
	if err != nil {
		return Generation{}, "", fmt.Errorf("begin a log: %w", err)
	}
	defer log.Close()

	d := &draft{store: s, generation: generation, adopted: adopted, Build: &build.Build{
		Image: name, Tree: box.Tree{Root: generation.Path, Hostname: hostname(name)},
		StateDir: s.StateDir, Environment: s.Environment, Downloads: s.downloads(), Log: log, Progress: s.Progress,
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

// shownOfTest is how many lines of a failed test's output its error has.
const shownOfTest = 3

// test looks whether machines boot from the generation, and asks whether jobs can run on
// it. What that prints goes to the log, and the end of it into the error.
func (d *draft) test(ctx context.Context) error {
	d.suspect = true
	if err := d.Step(ctx, "check", func() error {
		if err := box.ClearIdentity(d.Root); err != nil {
			return err
		}
		return cmp.Or(Check(d.Root), context.Cause(ctx))
	}); err != nil {
		return err
	}
	if d.store.Test == nil {
		return nil
	}
	return d.Step(ctx, "test", func() error {
		err := d.store.Test(ctx, d.Image, d.generation, d.Log)
		if lines := d.Log.Last(shownOfTest); err != nil && lines != nil {
			err = fmt.Errorf("%w: %s", err, strings.Join(lines, "; "))
		}
		return err
	})
}

// publish makes the generation the one that new jobs get. It waits for flushed, which is
// what flushAhead returned.
func (d *draft) publish(ctx context.Context, flushed <-chan error) error {
	return d.Step(ctx, "publish", func() (err error) {
		d.record.Built = time.Now().UTC().Truncate(time.Second)
		d.record.Replaced = d.current.Name
		if d.record.Bytes, err = storage.Usage(ctx, d.Root); err != nil {
			return err
		}
		if err := <-flushed; err != nil {
			return err
		}
		return d.store.publish(d.Image, d.generation, d.record)
	})
}

// keepIfSuspect keeps the tree of a build that failed of err, if the reason is to be found
// there. Where the tree fills the disk, it is not kept.
func (d *draft) keepIfSuspect(ctx context.Context, err error) error {
	if !d.suspect || ctx.Err() != nil || d.LacksRoom(err) {
		return err
	}
	return d.keepFailed(err)
}

// pruneOld removes what the image needs no more. If jobs keep starting all the
// time, it leaves that to the next build.
func (d *draft) pruneOld(ctx context.Context, outcome Outcome) error {
	_, err := d.store.prune(ctx, d.Image, KeptGenerations, func() error { return nil })
	if errors.Is(err, errImpatient) {
		d.Note("older generations stay for now: jobs are starting")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s, but removing older generations failed: %w", outcome, err)
	}
	return nil
}

// downloads are the cache of all builds.
func (s *Store) downloads() downloads.Cache {
	return downloads.Cache{Dir: filepath.Join(s.StateDir, ".downloads"), Max: s.DownloadsMax}
}

// bases are the bases of all images.
func (s *Store) bases() debian.Bases {
	return debian.Bases{Dir: filepath.Join(s.StateDir, ".bases"), MaxAge: s.BaseMaxAge}
}

// note tells a line for people.
func (s *Store) note(image, text string) {
	if s.Progress != nil {
		s.Progress(Event{Image: image, Note: text})
	}
}
