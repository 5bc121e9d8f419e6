package job

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
)

// caller is the gitlab-runner process that this driver works for.
//
// gitlab-runner starts a stage as the leader of a new process group, so it is
// above that leader. Not always next to it: the toml may call a wrapper, which would be
// dead before the job is, and that one may make a process group, as timeout(1) does.
// Each of them was given the job's response, which gitlab-runner itself was not. A
// program of that name is one in any case.
func caller() *host.Process {
	pid := os.Getppid()
	if above, err := parent(unix.Getpgrp()); err == nil {
		pid = above
	}
	for pid > 1 && wasGiven(pid, gitlab.ResponseVariable) && gitlabRunner(pid) == "" {
		above, err := parent(pid)
		if err != nil {
			return nil
		}
		pid = above
	}
	process, err := host.FindProcess(pid)
	if err != nil || pid <= 1 {
		return nil
	}
	return &process
}

// wasGiven says whether a process was started with a variable that has the value it
// has here.
func wasGiven(pid int, variable string) bool {
	value, ok := os.LookupEnv(variable)
	environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return ok && err == nil && slices.Contains(strings.Split(string(environment), "\x00"), variable+"="+value)
}

// gitlabRunner is the path of a process's program, if that is called gitlab-runner, else
// "". After an upgrade it ends in " (deleted)".
func gitlabRunner(pid int) string {
	program, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	if err != nil || !strings.HasPrefix(filepath.Base(program), "gitlab-runner") {
		return ""
	}
	return program
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
func whileHeard(ctx context.Context, pipe *os.File) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if pipe != nil {
		ends := []unix.PollFd{{Fd: int32(pipe.Fd())}}
		go func() {
			_, err := unix.Poll(ends, -1)
			for err == unix.EINTR {
				_, err = unix.Poll(ends, -1)
			}
			if err == nil && ends[0].Revents&unix.POLLERR != 0 {
				cancel(errors.New("gitlab-runner has ended, so nothing would stop the machine"))
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}
