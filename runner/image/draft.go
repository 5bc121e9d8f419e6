package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/storage"
)

// Outcome is what a maintenance that did not fail came to.
type Outcome string

// The outcomes. But for Published, the current generation stays.
const (
	Published Outcome = "published"
	Unchanged Outcome = "unchanged" // the playbook ran, and changed nothing
	Fresh     Outcome = "fresh"     // it was not to run yet
)

// draft is a generation in the making.
type draft struct {
	*build.Build
	store      *Store
	generation Generation
	current    Generation // the published one when the build began, if there was one
	record     Record     // of generation
	tally      ansible.Tally
	// suspect says that the image's own programs have run in the tree: if the build
	// fails now, the reason is to be found there.
	suspect bool
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
	return d.store.keepFailed(d.Image, d.Root, err)
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
