package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/downloads"
)

// StepError says in which step a build failed, and where all that it printed
// can be read.
type StepError struct {
	Step string
	Err  error
	Log  string // path of the full log
}

func (e *StepError) Error() string { return fmt.Sprintf("%s: %v (full log: %s)", e.Step, e.Err, e.Log) }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Step does one named part of the build. If that fails, the error is a *StepError.
// Whatever it fails of once ctx has ended is the end of ctx.
func (b *Build) Step(ctx context.Context, name string, do func() error) error {
	b.tell(Event{Step: name})
	b.Log.begin(name)
	defer b.watchPackages()()
	fault.Here("image: begin to " + name)
	if err := do(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if b.LacksRoom(err) {
			err = b.sayRoom(err)
		}
		if b.Log.Mentions(" is expired (invalid since ") {
			err = fmt.Errorf("%w; if the mirror is a snapshot, set nspawn_runner_check_valid_until: false (an existing image needs --recreate)", err)
		}
		fmt.Fprintf(b.Log, "== %s: %v\n", name, err)
		return &StepError{Step: name, Err: err, Log: b.Log.Path}
	}
	fault.Here("image: done with " + name)
	return nil
}

// Run runs a program of the build, made with exec.CommandContext. What it prints
// goes to the log, and the line that matters into the error. The program has a
// session of its own: it cannot wait for an answer from a terminal, and a Ctrl-C
// there reaches it through its context only. It dies with this process.
func (b *Build) Run(ctx context.Context, cmd *exec.Cmd) error {
	fmt.Fprintf(b.Log, "+ %s\n", shellescape.QuoteCommand(cmd.Args))
	cmd.Stdout, cmd.Stderr = b.Log, b.Log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 5 * time.Second

	// The kernel takes the thread that started the program for its parent.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		b.program.Store(int64(cmd.Process.Pid))
		err = cmd.Wait()
		b.program.Store(0)
	}
	if ctx.Err() != nil && cmd.Process != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what the program started and did not end
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // it left a child that holds its output
		return nil
	}
	return b.Log.reason(err)
}

// HostEnvironment is that of programs which run on this host, as exec.Cmd takes it.
func (b *Build) HostEnvironment() []string {
	env := os.Environ()
	for name, value := range b.Environment {
		env = append(env, name+"="+value)
	}
	return env
}

// Download does something with a proxy that caches downloads, or with none (nil) if
// nothing is cached. listen opens the proxy's socket.
func (b *Build) Download(listen func() (net.Listener, error), do func(*downloads.Proxy) error) error {
	p, err := b.Downloads.Serve(listen, b.Environment, b.Log)
	if err != nil {
		return fmt.Errorf("download cache: %w", err)
	}
	if p == nil {
		return do(nil)
	}
	err = p.Explain(do(p))
	if err != nil && b.Log.Mentions("Hash Sum mismatch") {
		p.Reject()
	}
	fmt.Fprintf(b.Log, "== downloads: %d bytes from mirrors, %d bytes kept from earlier builds\n", p.Fetched(), p.Cached())
	return errors.Join(err, p.Close())
}

// OnLoopback listens on the loopback device of this process, for Download.
func OnLoopback() (net.Listener, error) { return net.Listen("tcp", downloads.AnyPort) }

// InBox does something in a box on the tree, whose apt uses the proxy, if there is one.
func (b *Build) InBox(ctx context.Context, p *downloads.Proxy, do func(*box.Box) error) error {
	err := b.Tree.InBox(ctx, b.Log, Loans(p), do)
	var start *box.StartError
	if errors.As(err, &start) {
		return b.Log.reason(err)
	}
	return err
}

// Loans are what makes apt in a tree use a proxy, if there is one.
func Loans(p *downloads.Proxy) []box.Loan {
	if conf := p.AptConf(); conf != nil {
		return []box.Loan{{Path: "etc/apt/apt.conf.d/00nspawn-runner", Content: conf, Mode: 0o644}}
	}
	return nil
}
