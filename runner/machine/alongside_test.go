package machine

import (
	"context"
	"errors"
	"testing"

	"nspawn-runner/runner/host"
)

func TestWhatIsDoneBesideABootEndsBeforeTheMachineIsUndone(t *testing.T) {
	begun, ended := make(chan struct{}), false
	b := beginBeside(t.Context(), func(ctx context.Context, leader host.Process) error {
		if leader.PID != 7 {
			t.Error(leader)
		}
		close(begun)
		<-ctx.Done()
		ended = true
		return ctx.Err()
	})
	b.leader(host.Process{PID: 7})
	<-begun
	if b.end(); !ended {
		t.Error("it goes on")
	}
	b.end() // again
}

func TestAMachineThatIsUpWaitsForWhatIsDoneBesideIt(t *testing.T) {
	failed := errors.New("failed")
	b := beginBeside(t.Context(), func(context.Context, host.Process) error { return failed })
	b.leader(host.Process{})
	if err := b.wait(); !errors.Is(err, failed) {
		t.Error(err)
	}
	b.end()

	// Nothing is done, or the machine never had a first process.
	for _, do := range []func(context.Context, host.Process) error{nil, func(context.Context, host.Process) error { return failed }} {
		b := beginBeside(t.Context(), do)
		if do == nil {
			b.leader(host.Process{})
		}
		if err := b.wait(); err != nil {
			t.Error(err)
		}
		b.end()
	}
}
