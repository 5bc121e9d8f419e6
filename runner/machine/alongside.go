package machine

import (
	"context"

	"nspawn-runner/runner/host"
)

// alongside calls a function while a machine boots, as soon as the machine's first process exists: see
// Spec.Beside.
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

// leader calls the function in the background.
func (b *alongside) leader(leader host.Process) {
	if b.do != nil {
		b.begun = true
		go func() { b.done <- b.do(b.ctx, leader) }()
	}
}

// wait waits for the function and returns its error. It must be called after the boot.
func (b *alongside) wait() error {
	if !b.begun {
		return nil
	}
	b.begun = false
	return <-b.done
}

// end cancels the function and waits for it. A second call does nothing.
func (b *alongside) end() {
	b.cancel()
	_ = b.wait()
}
