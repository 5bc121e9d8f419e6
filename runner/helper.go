package runner

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/systemd"
)

// helperPath is where jobs find gitlab-runner, which uploads artifacts and
// packs caches.
const helperPath = "/usr/local/bin/gitlab-runner"

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

// helperBinds makes the host's gitlab-runner visible in the machine, unless
// the image has its own. Without one, scripts warn and artifacts are lost.
func (h *Host) helperBinds(chroot string, caller *systemd.Process) []machine.Bind {
	for _, dir := range []string{"usr/local/bin", "usr/bin", "bin"} {
		if _, err := os.Lstat(filepath.Join(chroot, dir, "gitlab-runner")); err == nil {
			return nil
		}
	}
	from := h.findHelper(caller)
	if from == "" {
		return nil
	}
	return []machine.Bind{{From: from, To: helperPath}}
}

// findHelper looks for gitlab-runner on the host: the one that calls fits
// best, then what PATH has, then what is configured.
func (h *Host) findHelper(caller *systemd.Process) string {
	if caller != nil {
		// After an upgrade the link ends in " (deleted)".
		exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(caller.PID), "exe"))
		if err == nil && strings.HasPrefix(filepath.Base(exe), "gitlab-runner") {
			if info, err := os.Stat(exe); err == nil && info.Mode().IsRegular() {
				return exe
			}
		}
	}
	if path, err := exec.LookPath("gitlab-runner"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return path
		}
	}
	if info, err := os.Stat(h.Config.GitlabRunner); err == nil && info.Mode().IsRegular() {
		return h.Config.GitlabRunner
	}
	return ""
}
