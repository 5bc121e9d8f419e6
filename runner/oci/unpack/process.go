package unpack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/printable"
)

// Process is a process that unpacks an image. It ends with its context.
type Process struct {
	cmd    *exec.Cmd
	layers io.WriteCloser
	// result and said are the last lines of its output and its errors. An image may have taken it over, so
	// they are bounded.
	result, said tail
	ended        bool
}

// Start starts a process that unpacks an image into an empty directory. program is the path of this program. The
// process keeps held open, so that a lock on it lasts as long as the process may write to the tree.
func Start(ctx context.Context, program, tree string, limits Limits, held *os.File) (*Process, error) {
	p := &Process{cmd: exec.CommandContext(ctx, program, Command, tree, number(limits.Bytes), number(limits.Files))}
	ids := []syscall.SysProcIDMap{{Size: maxID + 1}}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings: ids, GidMappings: ids,
		Setsid: true, // no terminal
	}
	p.cmd.Env = []string{"GOTRACEBACK=none"}
	p.cmd.Dir = "/"
	p.cmd.ExtraFiles = []*os.File{held}
	p.cmd.Stdout, p.cmd.Stderr = &p.result, &p.said
	var err error
	if p.layers, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process that unpacks: %w", err)
	}
	return p, nil
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// Layer unpacks the next layer. It has size bytes, and sum is the SHA-256 of its decompressed form.
func (p *Process) Layer(layer io.Reader, size int64, sum [32]byte) error {
	err := frame{Size: size, Sum: sum}.writeTo(p.layers)
	if err == nil {
		var n int64
		if n, err = io.Copy(p.layers, layer); err == nil && n != size {
			err = fmt.Errorf("the layer has %d bytes, not %d", n, size)
		}
	}
	if errors.Is(err, syscall.EPIPE) {
		if _, err = p.wait(); err == nil { // it knows why
			err = errors.New("unpack: the process ended before the last layer")
		}
	}
	return err
}

// Finish waits until all layers are unpacked, and the tree has the directories that a machine needs.
func (p *Process) Finish() (Result, error) {
	if err := (frame{Size: endOfLayers}).writeTo(p.layers); err != nil && !errors.Is(err, syscall.EPIPE) {
		p.Stop()
		return Result{}, err
	}
	return p.wait()
}

// Stop ends the process, if it has not ended. A second call does nothing.
func (p *Process) Stop() {
	if !p.ended {
		p.ended = true
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// HostError is a failure for which this host is to blame, and not the image: its disk is full, or
// the process was killed.
type HostError struct{ error }

// wait waits for the end of the process, and returns its result or its error.
func (p *Process) wait() (Result, error) {
	p.ended = true
	p.layers.Close()
	err := p.cmd.Wait()
	var ended end
	unread := json.Unmarshal(p.result.last, &ended)
	if err == nil {
		if unread != nil {
			return Result{}, fmt.Errorf("unpack: the process ended without a result: %w", unread)
		}
		return ended.Result, nil
	}
	exit := (*exec.ExitError)(nil)
	killed := errors.As(err, &exit) && !exit.Exited()
	if line := printable.Line(string(p.said.last)); line != "" && !killed {
		err = errors.New(line)
	}
	if killed || ended.OfHost {
		err = HostError{err}
	}
	return Result{}, fmt.Errorf("unpack: %w", err)
}

// tail keeps the last line that was written to it, or the end of that line.
type tail struct{ last []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.last = append(t.last, b...)
	if text := bytes.TrimRight(t.last, "\n"); bytes.IndexByte(text, '\n') >= 0 {
		t.last = append([]byte(nil), t.last[bytes.LastIndexByte(text, '\n')+1:]...)
	}
	t.last = t.last[max(0, len(t.last)-4096):]
	return len(b), nil
}
