package gitlab

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is one running process of the driver.
type Process struct {
	Stage    string // config, prepare, run or cleanup
	SubStage string // of run
	Try      int    // of prepare or of the sub-stage, from 1
	Pid      int
	Args     []string
	Env      []string // the last of equal names counts
	Dir      string   // its working directory and TMPDIR

	cmd     *exec.Cmd
	started time.Time
	pipes   []*os.File // our ends
	end     chan struct{}
	result  StageResult // complete when end is closed
}

// spawn starts a process as gitlab-runner does: leader of its own process
// group, but in gitlab-runner's session; nothing on stdin; and a pipe each for
// stdout and stderr, which follow reads.
func spawn(p *Process) error {
	p.cmd = exec.Command(p.Args[0], p.Args[1:]...)
	p.cmd.Dir, p.cmd.Env = p.Dir, p.Env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	for range 2 {
		reader, writer, err := os.Pipe()
		if err != nil {
			p.hangUp()
			return err
		}
		p.pipes, theirs = append(p.pipes, reader), append(theirs, writer)
	}
	p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1]

	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.hangUp()
		return err
	}
	p.Pid = p.cmd.Process.Pid
	p.end = make(chan struct{})
	return nil
}

// follow takes what a process that was spawned says, until it ends.
func (p *Process) follow(stdout, stderr io.Writer) {
	peak := watchPeakRSS(p.Pid)
	var drained sync.WaitGroup
	for i, sink := range []io.Writer{stdout, stderr} {
		drained.Go(func() {
			io.Copy(sink, p.pipes[i]) // whatever ends it, there is no more output
			p.pipes[i].Close()
		})
	}
	go func() {
		p.cmd.Wait() // its error says nothing that ProcessState does not
		p.result = measure(p.cmd.ProcessState, peak())
		drained.Wait()
		p.result.Elapsed = time.Since(p.started)
		close(p.end)
	}()
}

// hangUp closes our ends of the pipes: the next write of whoever holds the
// others fails, with SIGPIPE or EPIPE.
func (p *Process) hangUp() {
	for _, f := range p.pipes {
		f.Close()
	}
}

// Done is closed when the process has ended and nobody holds its pipes any
// more. That is when the stage ends, if gitlab-runner lives and is patient.
func (p *Process) Done() <-chan struct{} { return p.end }

// Signal sends a signal to the driver's process alone.
func (p *Process) Signal(signal syscall.Signal) error {
	return p.cmd.Process.Signal(signal)
}

// SignalGroup sends a signal to the driver's process group, as gitlab-runner
// does when it stops a stage. A group that is gone is no error.
func (p *Process) SignalGroup(signal syscall.Signal) error {
	if err := syscall.Kill(-p.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// endsWithin waits for the end of the stage, but not for ever.
func (p *Process) endsWithin(patience time.Duration, dead <-chan struct{}) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.end:
		return true
	case <-timer.C:
	case <-dead:
	}
	return false
}
