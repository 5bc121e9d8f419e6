package image

import (
	"context"
	"errors"
	"fmt"
	"net"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/downloads"
)

// A playbook can run in the generation while it is booted, as jobs will have it: its
// services run, and a database has a server to talk to. The machine's root is the tree
// itself. It is shut down in good order before anything else is done with the tree, so
// that what its services wrote is whole.

// Order says which machine a build wants.
type Order struct {
	Image      string
	Generation Generation
	// Hostname is what the machine calls itself.
	Hostname string
	// Shown are directories of the host that it sees where they are, read-only.
	Shown []string
	// Begin is called before it starts, with the paths below its root that the start may
	// make or change.
	Begin func(touched []string)
}

// playBooted runs the playbook in a machine whose root is the generation.
func (b *build) playBooted(ctx context.Context, book Playbook) (err error) {
	root := b.generation.Path
	if err := box.ClearIdentity(root); err != nil { // as jobs will have it
		return err
	}
	traces, err := box.OpenTraces(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, traces.Close()) }()
	machine, err := b.store.Boot(ctx, Order{
		Image: b.image, Generation: b.generation, Hostname: hostname(b.image),
		Shown: b.shown,
		Begin: func(touched []string) {
			b.suspect = true // if it does not boot, the reason is in the tree
			traces.Before(touched)
		},
	})
	if err != nil {
		traces.After()
		return errors.Join(err, traces.TakeBack())
	}
	fault.Here("image: booted")
	err = b.playInMachine(ctx, book, machine, traces)
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
func (b *build) playInMachine(ctx context.Context, book Playbook, machine *box.Machine, traces *box.Traces) error {
	traces.After()
	door, err := machine.Open()
	if err != nil {
		return err
	}
	defer door.Close()
	defer door.KeepGoing()()
	stop, err := door.Relay(box.LoopbackProxies(b.store.Environment))
	if err != nil {
		return err
	}
	defer stop()
	return b.download(func() (net.Listener, error) { return door.Listen(downloads.AnyPort) }, func(p *downloads.Proxy) error {
		takeBack, err := box.LendToMachine(b.generation.Path, loansOf(p)...)
		if err != nil {
			return err
		}
		return errors.Join(b.ansible(ctx, book, door), takeBack())
	})
}
