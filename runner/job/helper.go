package job

import (
	"os"
	"os/exec"
	"path/filepath"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// helperDir is the directory of machines that shows programs of the host.
const helperDir = "/usr/local/bin"

// helperBinds shows programs of the host in the machine, unless the image has its own: gitlab-runner,
// which uploads artifacts and packs caches, and step-runner, which executes the `run:` of a job.
// Without gitlab-runner, artifacts are lost; without step-runner, jobs with `run:` fail.
func (d *Driver) helperBinds(chroot string, caller *host.Process) (binds []machine.Bind) {
	for name, from := range map[string]string{"gitlab-runner": d.FindHelper(caller), "step-runner": inPath("step-runner")} {
		if from != "" && !hasProgram(chroot, name) {
			binds = append(binds, machine.Bind{From: from, To: filepath.Join(helperDir, name)})
		}
	}
	return binds
}

// hasProgram says whether a chroot has a program in a directory of the usual PATH.
func hasProgram(chroot, name string) bool {
	for _, dir := range []string{"usr/local/bin", "usr/bin", "bin"} {
		if _, err := os.Lstat(filepath.Join(chroot, dir, name)); err == nil {
			return true
		}
	}
	return false
}

// inPath returns the path of a program of the host, or "". It resolves links, because a bind must not
// lead through one.
func inPath(name string) string {
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return ""
	}
	return path
}

// FindHelper returns the path of gitlab-runner on the host, or "": the program of the caller, else that
// in PATH, else that of the configuration.
func (d *Driver) FindHelper(caller *host.Process) string {
	if caller != nil {
		path := gitlabRunner(caller.PID)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	if path := inPath("gitlab-runner"); path != "" {
		return path
	}
	path, err := filepath.EvalSymlinks(d.Config.GitlabRunner)
	if err != nil {
		return ""
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return path
	}
	return ""
}
