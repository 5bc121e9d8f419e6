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

// caller returns the gitlab-runner process that this driver works for, or nil.
//
// gitlab-runner starts a stage as the leader of a new process group, so gitlab-runner is an
// ancestor of that leader. It need not be the parent: config.toml may call the driver through
// wrappers, which end before the job does, and a wrapper may make a process group of its own, as
// timeout(1) does. Wrappers have the variable JOB_RESPONSE_FILE of this job, gitlab-runner has
// not. A process whose program is called gitlab-runner is taken in any case.
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

// wasGiven says whether a process was started with the same value of a variable as this one.
func wasGiven(pid int, variable string) bool {
	value, ok := os.LookupEnv(variable)
	environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return ok && err == nil && slices.Contains(strings.Split(string(environment), "\x00"), variable+"="+value)
}

// gitlabRunner returns the path of a process's program if its name begins with gitlab-runner, else
// "". After an upgrade the path ends in " (deleted)".
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

// whileHeard returns a context that ends when the read end of a pipe is closed. For the pipe to
// gitlab-runner this means that gitlab-runner is dead. caller cannot detect that in every case: if
// gitlab-runner died before, caller finds the process that adopted us, or none. The pipe may still
// be open then, because it closes with gitlab-runner's last thread.
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
