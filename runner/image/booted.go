package image

import (
	"context"
	"errors"
	"fmt"
	"net"

	"nspawn-runner/runner/fault"
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

// Booted is a machine that runs on the tree of a build.
type Booted struct {
	// PID is its first process, Alive says whether that still is it.
	PID   int
	Alive func() bool
	// Owner is the host's user id of its root, 0 where that is the host's.
	Owner int
	// Group is the directory of the control group for commands from outside.
	Group string
	// Shutdown shuts it down in good order, Kill at once; nothing of it is left then.
	Shutdown, Kill func(context.Context) error
}

// playBooted runs the playbook in a machine whose root is the generation.
func (b *build) playBooted(ctx context.Context, book Playbook) (err error) {
	root := b.generation.Path
	if err := forgetMachine(root); err != nil { // as jobs will have it
		return err
	}
	traces, err := openTraces(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, traces.Close()) }()
	machine, err := b.store.Boot(ctx, Order{
		Image: b.image, Generation: b.generation, Hostname: hostname(b.image),
		Shown: b.mirrors,
		Begin: func(touched []string) {
			b.suspect = true // if it does not boot, the reason is in the tree
			traces.before(touched)
		},
	})
	if err != nil {
		traces.after()
		return errors.Join(err, traces.takeBack())
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
	return errors.Join(err, traces.takeBack(), forgetBoot(root))
}

// playInMachine runs the playbook in a machine that is up.
func (b *build) playInMachine(ctx context.Context, book Playbook, machine *Booted, traces *traces) error {
	traces.after()
	door, err := machine.open()
	if err != nil {
		return err
	}
	defer door.Close()
	defer door.keepGoing()()
	stop, err := door.relay(loopbackProxies(b.store.Environment))
	if err != nil {
		return err
	}
	defer stop()
	return b.download(func() (net.Listener, error) { return door.listen(downloads.AnyPort) }, func(p *downloads.Proxy) error {
		scripts, err := lendStandIns(traces.tree, "booted")
		if err != nil {
			return err
		}
		restore, err := give(b.generation.Path, append(scripts, loansOf(p)...))
		if err != nil {
			return err
		}
		return errors.Join(b.ansible(ctx, book, door), restore())
	})
}
