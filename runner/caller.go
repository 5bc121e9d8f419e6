package runner

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/systemd"
)

// caller is the gitlab-runner process that this driver works for.
//
// gitlab-runner starts a stage as the leader of a new process group, so it is
// the parent of that leader: also when the toml calls a wrapper around us,
// which would be dead before the job is.
func caller() *systemd.Process {
	pid := os.Getppid()
	if leader := unix.Getpgrp(); leader != os.Getpid() {
		var err error
		if pid, err = parent(leader); err != nil {
			return nil
		}
	}
	process, err := systemd.FindProcess(pid)
	if err != nil || pid <= 1 {
		return nil
	}
	return &process
}

func parent(pid int) (int, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, os.ErrNotExist
}

// whileHeard returns a context that ends when nobody reads a pipe any more. Of the
// pipes to gitlab-runner that means that it is dead. caller cannot be sure of that: it
// may have asked when gitlab-runner was dead already, and have found who adopted us, or
// nobody, even before the last of gitlab-runner's threads was gone, and with it the pipe.
func whileHeard(ctx context.Context, pipe io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if file, ok := pipe.(*os.File); ok {
		ends := []unix.PollFd{{Fd: int32(file.Fd())}}
		go func() {
			_, err := unix.Poll(ends, -1)
			for err == unix.EINTR {
				_, err = unix.Poll(ends, -1)
			}
			if err == nil && ends[0].Revents&unix.POLLERR != 0 {
				cancel(errors.New("gitlab-runner is gone, so nobody would stop the machine"))
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}
