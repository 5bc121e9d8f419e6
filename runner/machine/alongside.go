package machine

import (
	"context"

	"nspawn-runner/runner/host"
)

// alongside is what is done while a machine boots, from the moment when its first process is
// there: see Spec.Beside.
type alongside struct {
	do     func(context.Context, host.Process) error
	ctx    context.Context
	cancel context.CancelFunc
	begun  bool
	done   chan error
}

func beginBeside(ctx context.Context, do func(context.Context, host.Process) error) *alongside {
	b := &alongside{do: do, done: make(chan error, 1)}
	b.ctx, b.cancel = context.WithCancel(ctx)
	return b
}

// leader begins it.
func (b *alongside) leader(leader host.Process) {
	if b.do != nil {
		b.begun = true
		go func() { b.done <- b.do(b.ctx, leader) }()
	}
}

// wait returns when it is done, with its error. It may be called when the machine is up.
func (b *alongside) wait() error {
	if !b.begun {
		return nil
	}
	b.begun = false
	return <-b.done
}

// end ends it, and returns when it has ended. Again does no harm.
func (b *alongside) end() {
	b.cancel()
	_ = b.wait()
}
