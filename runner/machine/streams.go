package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// streams copies a script's output through two pipes. gitlab-runner ends a stage when the stage's own pipes
// are closed. If the script had them, a process that outlives it could keep the stage from ending.
type streams struct {
	stdout, stderr stream
	broken         chan error
}

// stream is one of them.
type stream struct {
	inside, outside *os.File
	to              io.Writer
	done            chan struct{}
	err             error
}

// pipeSize is how many bytes a script can write without waiting for gitlab-runner. It is the default of
// /proc/sys/fs/pipe-max-size.
const pipeSize = 1 << 20

// newStreams makes the pipes. They belong to the machine's root, whose user id is owner, so that the script
// can open /dev/stdout and /dev/stderr.
func newStreams(stdout, stderr io.Writer, owner int) (*streams, error) {
	s := &streams{broken: make(chan error, 2)}
	for _, pipe := range []struct {
		stream *stream
		to     io.Writer
	}{{&s.stdout, stdout}, {&s.stderr, stderr}} {
		// os.Pipe would make both ends non-blocking, and scripts that write to such an output
		// fail with EAGAIN.
		var ends [2]int
		err := unix.Pipe2(ends[:], unix.O_CLOEXEC)
		if err == nil {
			_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
			err = errors.Join(unix.SetNonblock(ends[0], true), unix.Fchown(ends[1], owner, owner))
			*pipe.stream = stream{
				outside: os.NewFile(uintptr(ends[0]), "output"), inside: os.NewFile(uintptr(ends[1]), "output"),
				to: pipe.to, done: make(chan struct{}),
			}
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("make a pipe for the script's output: %w", err)
		}
	}
	return s, nil
}

// start begins to copy.
func (s *streams) start() {
	for _, one := range []*stream{&s.stdout, &s.stderr} {
		go func() {
			one.copy()
			if one.err != nil {
				s.broken <- one.err
			}
			close(one.done)
		}()
	}
}

func (s *stream) copy() {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := s.outside.Read(*buffer)
		if n > 0 {
			if _, err := s.to.Write((*buffer)[:n]); err != nil {
				s.err = err
				return
			}
		}
		if err != nil {
			return
		}
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// finish copies what the script had written before its end. It does not wait for the end of the pipes: a
// process that outlives the script may keep them open.
func (s *streams) finish() error {
	for _, one := range []*stream{&s.stdout, &s.stderr} {
		one.inside.Close()
		// This ends the copy. A read fails after the deadline even if there is data, so rest reads
		// that below.
		_ = one.outside.SetReadDeadline(time.Now())
		<-one.done
		if one.err == nil {
			one.err = one.rest()
		}
	}
	return errors.Join(s.stdout.err, s.stderr.err)
}

// rest copies what is in the pipe now.
func (s *stream) rest() error {
	raw, err := s.outside.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = s.drain(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (s *stream) drain(fd int) error {
	left, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
	if err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for left > 0 {
		n, err := unix.Read(fd, buffer[:min(left, len(buffer))])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return nil
		}
		if _, err := s.to.Write(buffer[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (s *streams) close() {
	for _, file := range []*os.File{s.stdout.inside, s.stdout.outside, s.stderr.inside, s.stderr.outside} {
		if file != nil {
			file.Close()
		}
	}
}
