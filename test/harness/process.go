package harness

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// contained wraps a command in a process and a mount namespace of its own.
// When the command ends, or unshare is killed, the kernel kills what is left
// in there and undoes its mounts, so that not even SIGKILL leaves anything.
func contained(argv ...string) []string {
	return append([]string{"unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--"}, argv...)
}

// process is a running command that does not outlive this one.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when err is set
	err    error
}

// start runs a command in a process group of its own, where a Ctrl-C at the
// terminal does not reach it, and with a SIGKILL due when this process dies.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal comes when the parent's thread dies, not the parent, so
		// this thread must last as long as the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	return p, <-started
}

// running reports whether the process has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill ends the process now, and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// outcome is the error of a command that ended with err, with the end of what
// it printed.
func outcome(err error, argv []string, output []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w%s", strings.Join(argv, " "), err, tail(output))
}

// tail is the last lines of a program's output, set off as the end of an
// error.
func tail(output []byte) string {
	const most = 20
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	return "\n\t" + strings.Join(lines, "\n\t")
}
