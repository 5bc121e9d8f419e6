package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/image/ansible"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/downloads"
)

// playing is a change by a playbook, in a box on the generation, or in a machine that was
// booted from it.
func playing(book ansible.Playbook, booted bool) func(context.Context, *draft) error {
	return func(ctx context.Context, d *draft) error {
		if book.Path != "" {
			d.record.Playbook = &PlaybookRecord{Path: book.Path, SHA256: book.SHA256}
		}
		d.record.Maintained = time.Now().UTC().Truncate(time.Second)
		if !book.HasPlays() {
			d.tally.Known = true // nothing
			return nil
		}
		return d.Step(ctx, "playbook "+book.Path, func() error {
			if booted {
				return d.playBooted(ctx, book)
			}
			return d.Download(build.OnLoopback, func(p *downloads.Proxy) error { return d.playInBox(ctx, book, p) })
		})
	}
}

// playInBox runs the playbook in a box on the generation.
func (d *draft) playInBox(ctx context.Context, book ansible.Playbook, p *downloads.Proxy) error {
	return d.InBox(ctx, p, func(x *box.Box) error {
		if err := x.FillRun(ctx, d.Environment); err != nil {
			return err
		}
		d.suspect = true
		return d.run(ctx, book, x.Door, false)
	})
}

// run runs the playbook on what is behind a door.
func (d *draft) run(ctx context.Context, book ansible.Playbook, door *box.Door, booted bool) (err error) {
	d.tally, err = book.Run(ctx, d.Build, door, booted)
	return err
}

// A playbook can run in the generation while it is booted, as jobs will have it: its
// services run, and a database has a server to talk to. The machine's root is the tree
// itself. It is shut down in good order before anything else is done with the tree, so
// that what its services wrote is whole.

// playBooted runs the playbook in a machine whose root is the generation.
func (d *draft) playBooted(ctx context.Context, book ansible.Playbook) (err error) {
	root := d.Root
	if err := box.ClearIdentity(root); err != nil { // as jobs will have it
		return err
	}
	traces, err := box.OpenTraces(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, traces.Close()) }()
	machine, err := d.store.Boot(ctx, Order{
		Image: d.Image, Generation: d.generation, Hostname: d.Hostname, Shown: d.Shown,
		Begin: func(touched []string) {
			d.suspect = true // if it does not boot, the reason is in the tree
			traces.Before(touched)
		},
	})
	if err != nil {
		traces.After()
		return errors.Join(err, traces.TakeBack())
	}
	fault.Here("image: booted")
	err = d.playInMachine(ctx, book, machine, traces)
	if ctx.Err() != nil { // the tree is thrown away
		return errors.Join(err, machine.Kill(ctx))
	}
	if err != nil && !machine.Alive() {
		err = fmt.Errorf("%w; the machine of the build has ended: a playbook cannot reboot or shut down what it builds", err)
	}
	switch ended := machine.Shutdown(ctx); {
	case err == nil:
		err = ended
	case ended != nil:
		err = fmt.Errorf("%w (and then: %v)", err, ended)
	}
	fault.Here("image: shut down")
	return errors.Join(err, traces.TakeBack(), box.ClearBoot(root))
}

// playInMachine runs the playbook in a machine that is up.
func (d *draft) playInMachine(ctx context.Context, book ansible.Playbook, machine *box.Machine, traces *box.Traces) error {
	traces.After()
	door, err := machine.Open()
	if err != nil {
		return err
	}
	defer door.Close()
	defer door.KeepGoing()()
	stop, err := door.Relay(box.LoopbackProxies(d.Environment))
	if err != nil {
		return err
	}
	defer stop()
	return d.Download(func() (net.Listener, error) { return door.Listen(downloads.AnyPort) }, func(p *downloads.Proxy) error {
		takeBack, err := box.LendToMachine(d.Root, build.Loans(p)...)
		if err != nil {
			return err
		}
		return errors.Join(withLastWords(ctx, d.run(ctx, book, door, true), machine), takeBack())
	})
}

// ofService are the words of systemctl(1) for a service whose reason is in the journal.
var ofService = regexp.MustCompile(`Job for \S+ failed`)

// withLastWords adds to the failure of a service in a machine what the machine said last: its
// journal ends with it.
func withLastWords(ctx context.Context, failure error, machine *box.Machine) error {
	if failure == nil || ctx.Err() != nil || !ofService.MatchString(failure.Error()) {
		return failure
	}
	lines := machine.LastWords(ctx)
	if len(lines) == 0 {
		return failure
	}
	return fmt.Errorf("%w\nthe last lines of its machine's journal:\n  %s", failure, strings.Join(lines, "\n  "))
}
