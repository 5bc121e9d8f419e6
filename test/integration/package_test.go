package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// packagedState is the state directory of an installation from the Debian package.
const packagedState = "/var/lib/nspawn-runner"

// packagedDriver is the program of the Debian package.
const packagedDriver = "/usr/bin/nspawn-runner"

// withPackage is the host with the Debian package, whose state directory lies on btrfs.
func withPackage(t *testing.T) *host {
	t.Helper()
	needVM(t)
	h := install(t, "btrfs")
	dir := filepath.Join(filepath.Dir(h.state), "packaged")
	shell(t, "mkdir -p "+dir+" "+packagedState+" && mount --bind "+dir+" "+packagedState)
	return &host{driver: packagedDriver, config: "/etc/nspawn-runner.yaml", state: packagedState, playbooks: "/etc/nspawn-runner", backend: "btrfs"}
}

// timers are the names of the timers that the package has, those that are active.
func timers(t *testing.T) string {
	t.Helper()
	return shell(t, "systemctl list-units --type=timer --state=active --plain --no-legend 'nspawn-runner-*' | cut -d' ' -f1")
}

// manyInstances is what the package sets the limit of inotify instances to, as the doctor advises.
const manyInstances = "1073741824\n"

const bothTimers = "nspawn-runner-maintenance.timer\nnspawn-runner-metrics.timer\n"

// This test and the next show what a lab cannot show of the package: settings of the kernel,
// and a reboot. test/installed has the rest. This one is the last before the reboot, as other
// tests would take the package's units for something that jobs have left.
func TestLeaveTheDebianPackageInstalledAndAMachineOfItRunning(t *testing.T) {
	deb := os.Getenv("NSPAWN_RUNNER_DEB")
	h := withPackage(t)
	if _, err := os.Stat(deb); err != nil {
		t.Skip("needs the package: run 'go tool mage deb' first")
	}
	install := "dpkg --force-confold --install " + deb
	shell(t, "echo 16 >/proc/sys/fs/inotify/max_user_instances && "+install)
	if got := timers(t); got != bothTimers {
		t.Errorf("active timers: %q", got)
	}
	if got := shell(t, "stat -c '%a %U' "+packagedState+"; cat /proc/sys/fs/inotify/max_user_instances"); got != "700 root\n"+manyInstances {
		t.Errorf("got %q", got)
	}

	h.configure(t, "")
	generation := packagedState + "/.generations/bookworm/20260101T000000Z"
	shell(t, "mkdir -p "+filepath.Dir(generation)+" && btrfs -q subvolume snapshot "+
		os.Getenv("NSPAWN_RUNNER_SCRATCH")+"/btrfs/state/bookworm/ "+generation+
		" && ln -s .generations/bookworm/20260101T000000Z "+packagedState+"/bookworm")
	id := newID()
	h.drives(t, "prepare", "--id", id, "bookworm")
	shell(t, install)
	if c := h.run(t, id, "systemctl is-system-running"); c.stdout != "running\n" {
		t.Errorf("after an upgrade: %+v", c)
	}
	doctor := h.drive(t, "doctor").stdout
	for line := range strings.Lines(doctor) {
		if strings.HasPrefix(line, "bad ") && !strings.Contains(line, "gitlab-runner") {
			t.Errorf("%s", line)
		}
	}
	out := shell(t, "! dpkg --purge nspawn-runner")
	wantLog(t, out, "machines are running: ", "nspawn-runner-"+id)
	shell(t, "sync")
}

func TestAfterARebootTheDebianPackageWorksAndIsPurged(t *testing.T) {
	h := withPackage(t)
	if _, err := os.Stat(packagedDriver); err != nil {
		t.Skip("needs the package, which TestLeaveTheDebianPackageInstalledAndAMachineOfItRunning installs")
	}
	if got := timers(t); got != bothTimers {
		t.Errorf("active timers: %q", got)
	}
	if got := shell(t, "cat /proc/sys/fs/inotify/max_user_instances"); got != manyInstances {
		t.Errorf("inotify instances: %s", got)
	}
	if left := h.left(t); len(left) != 1 {
		t.Errorf("machines that the reboot left: %q", left)
	}
	if r := h.play(t, gitlab.Job{Script: []string{"echo works"}}); r.Status != gitlab.Success {
		t.Error(r.Log)
	}
	await(t, "what the reboot left to be removed", func() bool { return len(h.left(t)) == 0 })
	shell(t, "dpkg --purge nspawn-runner && [ -z \"$(ls -A "+packagedState+")\" ] && umount "+packagedState+" && rmdir "+packagedState)
	if found := shell(t, "find / -xdev -name '*nspawn-runner*' -not -path '/opt/*' -not -path '/proc/*' -not -path '/tmp/*'"); found != "" {
		t.Errorf("the purge leaves %s", found)
	}
}
