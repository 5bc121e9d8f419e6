package job

import (
	"os"
	"os/exec"
	"path/filepath"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// helperPath is where jobs find gitlab-runner, which uploads artifacts and
// packs caches.
const helperPath = "/usr/local/bin/gitlab-runner"

// helperBinds makes the host's gitlab-runner visible in the machine, unless
// the image has its own. Without one, scripts warn and artifacts are lost.
func (d *Driver) helperBinds(chroot string, caller *host.Process) []machine.Bind {
	for _, dir := range []string{"usr/local/bin", "usr/bin", "bin"} {
		if _, err := os.Lstat(filepath.Join(chroot, dir, "gitlab-runner")); err == nil {
			return nil
		}
	}
	from := d.FindHelper(caller)
	if from == "" {
		return nil
	}
	return []machine.Bind{{From: from, To: helperPath}}
}

// FindHelper looks for gitlab-runner on the host: the one that calls fits
// best, then what PATH has, then what is configured.
func (d *Driver) FindHelper(caller *host.Process) string {
	if caller != nil {
		path := gitlabRunner(caller.PID)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	// No bind is reached by links.
	if path, err := exec.LookPath("gitlab-runner"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return path
		}
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
