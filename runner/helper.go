package runner

import (
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

// unheard says whether nobody reads a pipe any more. Of the pipes to gitlab-runner
// that means that it is dead, maybe since before we asked for our parent, and then
// caller has found who adopted us. So it is asked after caller.
func unheard(pipe io.Writer) bool {
	file, ok := pipe.(*os.File)
	if !ok {
		return false
	}
	ends := []unix.PollFd{{Fd: int32(file.Fd())}}
	_, err := unix.Poll(ends, 0)
	return err == nil && ends[0].Revents&unix.POLLERR != 0
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
