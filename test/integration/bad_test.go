package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

func TestAnUnknownImageIsTheJobsFailureAndNotTriedAgain(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "trixie", "")
	r := h.play(t, gitlab.Job{Image: gitlab.Image{Name: "debian:bookwrm"}, Script: []string{"true"}})
	if r.Reason != gitlab.ScriptFailure || strings.Join(r.Names(), " ") != "config prepare cleanup" {
		t.Errorf("%s after %v: %s", r.Reason, r.Names(), r.Log)
	}
	wantLog(t, r.Log, "image bookwrm: there is no such image; there are: bookworm, trixie")
}

func TestAJobWithoutAnImageIsToldSo(t *testing.T) {
	h := onHost(t, "overlay")
	c := h.drive(t, "prepare", "--id", newID())
	if c.status != 1 || c.code != "1" {
		t.Errorf("exit %d, code %q", c.status, c.code)
	}
	wantLog(t, c.stderr, "the job names no image")
	id := newID()
	if c := h.drive(t, "prepare", "--id", id, "--default-image=bookworm"); c.status != 0 {
		t.Errorf("with a default: %s", c.stderr)
	}
	if c := h.drive(t, "cleanup", "--id", id); c.status != 0 || c.stderr+c.stdout != "" {
		t.Errorf("cleanup: %+v", c)
	}
}

func TestABrokenImageIsTheSystemsFailureAndSaysWhatIsMissing(t *testing.T) {
	h := onHost(t, "overlay")
	for name, test := range map[string]struct{ change, want string }{
		"no-init":  {"rm -f usr/lib/systemd/systemd sbin/init", "no init"},
		"no-dbus":  {"rm -f usr/bin/dbus-daemon usr/bin/dbus-broker-launch", "no D-Bus daemon"},
		"no-shell": {"rm -f usr/bin/bash", "no shell (/bin/bash)"},
	} {
		h.addImage(t, name, test.change)
		c := h.drive(t, "prepare", "--id", newID(), name)
		if c.status != 2 {
			t.Errorf("%s: exit %d", name, c.status)
		}
		wantLog(t, c.stderr, "image "+name, test.want)
	}
}

// hang is a unit that never finishes starting.
const hang = `mkdir -p etc/systemd/system/multi-user.target.wants
cat > etc/systemd/system/hangs.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sleep infinity
END
ln -s ../hangs.service etc/systemd/system/multi-user.target.wants/`

func TestAMachineThatDoesNotComeUpFailsInTimeWithTheReason(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			h := onHost(t, backend)
			h.configure(t, "boot_timeout: 3s\n")
			t.Cleanup(func() { h.configure(t, "") })
			h.addImage(t, "hangs", hang)
			start := time.Now()
			c := h.drive(t, "prepare", "--id", newID(), "hangs")
			if c.status != 2 || time.Since(start) > 20*time.Second {
				t.Errorf("exit %d after %v", c.status, time.Since(start))
			}
			wantLog(t, c.stderr, "did not come up within 3s (boot_timeout)", "still starting: hangs.service")
		})
	}
}

func TestAMachineInEmergencyModeIsNotUp(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "boot_timeout: 10s\n")
	t.Cleanup(func() { h.configure(t, "") })
	h.addImage(t, "emergency", "mkdir -p etc/systemd/system; ln -sf /usr/lib/systemd/system/emergency.target etc/systemd/system/default.target")
	c := h.drive(t, "prepare", "--id", newID(), "emergency")
	if c.status != 2 {
		t.Errorf("exit %d: %s", c.status, c.stderr)
	}
	h.addImage(t, "crashes", "rm usr/lib/systemd/systemd sbin/init 2>/dev/null; printf '#!/bin/sh\\necho this init is no good\\nexit 1\\n' > usr/lib/systemd/systemd; chmod 755 usr/lib/systemd/systemd")
	c = h.drive(t, "prepare", "--id", newID(), "crashes")
	if c.status != 2 {
		t.Errorf("exit %d: %s", c.status, c.stderr)
	}
	wantLog(t, c.stderr, "this init is no good")
}

func TestADegradedMachineIsUp(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "degraded", strings.Replace(hang, "sleep infinity", "false", 1))
	c := h.run(t, h.prepared(t, "degraded"), "systemctl is-system-running; true")
	if c.stdout != "degraded\n" {
		t.Errorf("%+v", c)
	}
}

func TestAMachineThatDiesDuringAScriptIsTheSystemsFailure(t *testing.T) {
	h := onHost(t, "overlay")
	for script, want := range map[string]string{
		"systemctl poweroff; sleep 30":                       "it was powered off",
		"systemctl reboot; sleep 30":                         "was rebooted",
		"kill -KILL 1; systemctl poweroff --force; sleep 30": "machine run-",
	} {
		t.Run(script, func(t *testing.T) {
			id := newNumber()
			r := h.play(t, gitlab.Job{ID: id, Script: []string{script}})
			if r.Reason != gitlab.SystemFailure {
				t.Errorf("%s %s: %s", r.Status, r.Reason, r.Log)
			}
			wantLog(t, r.Log, want)
		})
	}
}

func TestAJobMayRestartItsDBus(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "systemctl restart dbus; sleep 1; echo went on; exit 4")
	if c.status != 1 || c.code != "4" || c.stdout != "went on\n" {
		t.Errorf("%+v", c)
	}
}

func TestAScriptWhoseBusIsGoneDoesNotReachTheNextSubStage(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "systemctl kill -s KILL dbus.service; systemctl mask --now dbus.service dbus.socket; rm -rf /run/dbus; sleep 1000")
	if c.status != 2 || !strings.Contains(c.stderr, "its D-Bus went away") {
		t.Errorf("%+v", c)
	}
	await(t, "the machine's end", func() bool {
		return exec.Command("systemctl", "is-active", "nspawn-runner-"+id+".service").Run() != nil
	})
}

func TestABusThatIsNotOneIsTheSystemsFailure(t *testing.T) {
	h := onHost(t, "overlay")
	for name, change := range map[string]string{
		"a link to the host's": "ln -s /proc/1/root/run/dbus/system_bus_socket /run/dbus/system_bus_socket",
		"a link out":           "ln -s ../../../../../../../../run/systemd/private /run/dbus/system_bus_socket",
		"a fifo":               "mkfifo /run/dbus/system_bus_socket",
		"a file":               "touch /run/dbus/system_bus_socket",
		"nothing":              "true",
	} {
		t.Run(name, func(t *testing.T) {
			id := h.prepared(t, "bookworm")
			h.run(t, id, "rm -f /run/dbus/system_bus_socket; "+change)
			if c := h.run(t, id, "echo executed"); c.status != 2 || c.stdout != "" {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestABusThatNeverAnswersIsTheSystemsFailureInBoundedTime(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	h.run(t, id, `cat > /silent.py <<'END'
import os, socket, time
path = "/run/dbus/system_bus_socket"
os.unlink(path)
s = socket.socket(socket.AF_UNIX)
s.bind(path)
os.chmod(path, 0o666)
s.listen(100)
open("/ready", "w")
time.sleep(1000)
END
systemd-run -q python3 /silent.py; while [ ! -e /ready ]; do sleep 0.01; done`)
	start := time.Now()
	c := h.run(t, id, "echo executed")
	if c.status != 2 || c.stdout != "" || time.Since(start) > 90*time.Second {
		t.Errorf("after %v: %+v", time.Since(start), c)
	}
	wantLog(t, c.stderr, "its D-Bus does not answer")
}

func TestAChrootOnAnotherFileSystemIsNotSnapshot(t *testing.T) {
	h := onHost(t, "overlay")
	btrfs := install(t, "btrfs")
	other := h.elsewhere(t, filepath.Join(filepath.Dir(h.state), "third"), "overlay")
	other.before = other.leftovers(t)
	t.Cleanup(func() { os.RemoveAll(other.state) })
	must(t, os.Remove(filepath.Join(other.state, "bookworm")), os.Symlink(filepath.Join(btrfs.state, "bookworm")+"/", filepath.Join(other.state, "bookworm")))
	other.useBackend(t, "auto")
	if c := other.run(t, other.prepared(t, "bookworm"), "echo works"); c.stdout != "works\n" {
		t.Errorf("%+v", c)
	}
	other.useBackend(t, "btrfs")
	c := other.drive(t, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "lie on different file systems: use backend overlay or tmpfs")
}

func TestASIGTERMAtAnyMomentOfRunLeavesNoScript(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	path := script(t, "exec sleep 1234567")
	for i := range 60 {
		cmd := exec.Command(h.driver, "--config", h.config, "run", "--id", id, path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		must(t, cmd.Start())
		time.Sleep(time.Duration(3000+i*150) * time.Microsecond) // the moment is the point
		must(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM))
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != 2 {
			continue // killed before it could ask for the signal
		}
		if c := h.run(t, id, "pgrep -f 'sleep 1234567'; true"); c.stdout != "" {
			t.Fatalf("after %d: still there: %s", i, c.stdout)
		}
	}
	h.run(t, id, "pkill -f 'sleep 1234567'; true")
}

func TestTwoStateDirectoriesDoNotTouchEachOthersMachines(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	other := h.elsewhere(t, filepath.Join(filepath.Dir(h.state), "second"), "overlay")
	other.before = other.leftovers(t)
	t.Cleanup(func() { os.RemoveAll(other.state) })
	if c := other.drive(t, "prepare", "--id", id, "bookworm"); c.status != 2 {
		t.Errorf("prepare: %+v", c)
	}
	if c := other.drive(t, "cleanup", "--id", id); c.status != 0 {
		t.Errorf("cleanup: %+v", c)
	}
	if c := h.run(t, id, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("%+v", c)
	}
}

func TestAShellThatIsNotThereIsNotTheJobsFault(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	if c := h.drive(t, "run", "--id", id, "--shell", "/bin/zsh", script(t, "true")); c.status != 2 || !strings.Contains(c.stderr, "could not execute") {
		t.Errorf("%+v", c)
	}
	if c := h.drive(t, "run", "--id", id, "--shell", "/usr/bin/python3", script(t, "print(6*7)")); c.stdout != "42\n" {
		t.Errorf("%+v", c)
	}
	for _, text := range []string{"", "true", "#", "printf ''\r\n", "exit 0\n"} {
		if c := h.run(t, id, text); c.status != 0 && text != "printf ''\r\n" {
			t.Errorf("%q: %+v", text, c)
		}
	}
	// Not executing a script is no success either.
	h.run(t, id, "cp /bin/true /usr/bin/bash.new && mv /usr/bin/bash.new /usr/bin/bash")
	if c := h.run(t, id, "echo x; exit 3"); c.status == 0 {
		t.Errorf("%+v", c)
	}
}

func TestAMachineThatIsKilledFromOutsideIsTheSystemsFailure(t *testing.T) {
	h := onHost(t, "overlay")
	id := newNumber()
	runner := h.runner()
	runner.OnLine = func(_ *gitlab.Running, line string) {
		if line == "ready" {
			go exec.Command("systemctl", "kill", "--signal=KILL", fmt.Sprintf("nspawn-runner-%d.service", id)).Run()
		}
	}
	r := h.playOn(t, runner, gitlab.Job{ID: id, Script: []string{"echo ready; sleep 30"}})
	if r.Reason != gitlab.SystemFailure {
		t.Errorf("%s %s: %s", r.Status, r.Reason, r.Log)
	}
	wantLog(t, r.Log, "was killed (signal 9)")
}

func TestAnIDThatLeadsElsewhereIsRefused(t *testing.T) {
	h := onHost(t, "overlay")
	victim := t.TempDir()
	for _, id := range []string{"x/../../../../.." + victim, "..", ".", "a b", "-x", "x\ny", "", strings.Repeat("x", 100)} {
		for _, stage := range [][]string{{"prepare", "bookworm"}, {"run", "/dev/null", "x"}, {"cleanup"}} {
			c := h.driveWith(t, []string{"CUSTOM_ENV_CI_JOB_ID=" + id}, stage...)
			if c.status != 2 || !strings.Contains(c.stderr, "job id") {
				t.Errorf("%q %v: exit %d: %s", id, stage, c.status, c.stderr)
			}
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

func TestAJobCannotPoseAsAnother(t *testing.T) {
	h := onHost(t, "overlay")
	victim := h.prepared(t, "bookworm")
	// All that a job can set: its variables. The response file has GitLab's word.
	r := h.play(t, gitlab.Job{
		Variables: []gitlab.Variable{{Key: "CI_JOB_ID", Value: victim}, {Key: "CI_JOB_IMAGE", Value: "../etc"}, {Key: "CI_SERVER_URL", Value: "https://evil.example"}},
		Script:    []string{"hostname"},
	})
	if r.Status != gitlab.Success || strings.Contains(r.Log, "run-"+victim) {
		t.Errorf("%s: %s", r.Status, r.Log)
	}
	if c := h.run(t, victim, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("the other job's machine: %+v", c)
	}
}

func TestEqualIDsOfTwoGitLabsDoNotMeet(t *testing.T) {
	h := onHost(t, "overlay")
	id := newNumber()
	var second gitlab.Result
	runner := h.runner()
	runner.OnLine = func(_ *gitlab.Running, line string) {
		if line == "first is running" {
			second = h.play(t, gitlab.Job{ID: id, Token: "glcbt-of-the-second", ServerURL: "https://other.example", Script: []string{"echo never"}})
		}
	}
	first := h.playOn(t, runner, gitlab.Job{ID: id, Script: []string{"echo first is running", "echo first is done"}})
	if second.Reason != gitlab.SystemFailure {
		t.Errorf("second: %s %s", second.Status, second.Log)
	}
	wantLog(t, second.Log, "another GitLab's or runner's job has this id")
	if first.Status != gitlab.Success {
		t.Errorf("first: %s", first.Log)
	}
	wantLog(t, first.Log, "first is done")
}

func TestASecondPrepareByHandTouchesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.drive(t, "prepare", "--id", id, "bookworm")
	if c.status != 2 || !strings.Contains(c.stderr, "it is running already") {
		t.Errorf("%+v", c)
	}
	if c := h.run(t, id, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("%+v", c)
	}
}

func TestASecondTryOfPrepareReplacesTheFirst(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		runner := h.runner()
		killed := false
		runner.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
			if p.Stage == "prepare" && !killed {
				killed = true
				// Cleanup follows, then the second try.
				go func() {
					await(t, "the first try's machine", func() bool {
						out, _ := exec.Command("machinectl", "list", "--no-legend").Output()
						return len(out) > 0
					})
					p.SignalGroup(9)
				}()
			}
		}
		r := h.playOn(t, runner, gitlab.Job{Script: []string{"echo made it"}})
		if r.Status != gitlab.Success || r.Last("prepare").Try != 2 {
			t.Errorf("%s %v: %s", r.Status, r.Names(), r.Log)
		}
	})
}

func TestRunWithoutPrepareIsTheSystemsFailure(t *testing.T) {
	h := onHost(t, "overlay")
	c := h.run(t, newID(), "true")
	if c.status != 2 || !strings.Contains(c.stderr, "there is none") {
		t.Errorf("%+v", c)
	}
}

func TestCleanupOfNothingIsSuccessAndSilent(t *testing.T) {
	h := onHost(t, "overlay")
	for range 2 {
		if c := h.drive(t, "cleanup", "--id", newID()); c.status != 0 || c.stdout+c.stderr != "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestNotRootIsToldSo(t *testing.T) {
	h := onHost(t, "overlay")
	binary := filepath.Join("/tmp", "nspawn-runner-as-nobody")
	shell(t, "cp "+h.driver+" "+binary+" && chmod 755 "+binary)
	defer os.Remove(binary)
	out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "prepare", "--id", "1", "bookworm").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "must run as root") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAHostWithoutSystemdIsToldHowToTryTheLab(t *testing.T) {
	h := onHost(t, "overlay")
	out, err := exec.Command("unshare", "-m", "sh", "-c", "mount -t tmpfs none /run/systemd && exec "+h.driver+" --config "+h.config+" prepare --id 1 bookworm").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "go tool mage demo") {
		t.Errorf("%v: %s", err, out)
	}
}

// elsewhere is a host whose state directory is dir, with the image of h.
func (h *host) elsewhere(t *testing.T, dir, backend string) *host {
	t.Helper()
	other := &host{driver: h.driver, config: filepath.Join(t.TempDir(), "config.yaml"), state: dir, playbooks: t.TempDir(), backend: backend}
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.Symlink(filepath.Join(h.state, "bookworm")+"/", filepath.Join(dir, "bookworm")))
	other.configure(t, "")
	t.Cleanup(func() { other.checkNothingLeft(t) })
	return other
}

// useBackend configures another backend than the host was made with.
func (h *host) useBackend(t *testing.T, name string) {
	t.Helper()
	made := h.backend
	h.backend = name
	h.configure(t, "")
	h.backend = made
}

func TestAStateDirectoryThatCannotHoldAnOverlayNamesABackendThatCan(t *testing.T) {
	h := onHost(t, "overlay")
	dir := t.TempDir()
	shell(t, fmt.Sprintf("mkdir %[1]s/l %[1]s/u %[1]s/w %[1]s/m", dir))
	tmpfs := filepath.Join(dir, "u")
	shell(t, fmt.Sprintf("mount -t tmpfs t %s && mkdir %[1]s/u %[1]s/w && mount -t overlay o -o lowerdir=%[2]s/l,upperdir=%[1]s/u,workdir=%[1]s/w %[2]s/m", tmpfs, dir))
	t.Cleanup(func() { shell(t, fmt.Sprintf("umount %s/m %s", dir, tmpfs)) })
	other := h.elsewhere(t, filepath.Join(dir, "m", "state"), "overlay")
	c := other.drive(t, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "cannot hold an overlay", "backend: tmpfs")

	other.useBackend(t, "tmpfs")
	if c := other.run(t, other.prepared(t, "bookworm"), "echo works"); c.stdout != "works\n" {
		t.Errorf("%+v", c)
	}
	other.useBackend(t, "btrfs")
	c = other.drive(t, "prepare", "--id", newID(), "bookworm")
	wantLog(t, c.stderr, "is no btrfs subvolume: use backend overlay or tmpfs")
}

func TestAFullDiskInPrepareIsTheSystemsFailureAndLeavesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	dir := t.TempDir()
	// Nothing at all fits; then the record does but the machine does not.
	for _, inodes := range []int{3, 6, 8} {
		shell(t, fmt.Sprintf("mount -t tmpfs -o size=64k,nr_inodes=%d small %s", inodes, dir))
		other := &host{driver: h.driver, config: filepath.Join(t.TempDir(), "c.yaml"), state: dir, playbooks: t.TempDir(), backend: "overlay"}
		must(t, os.Symlink(filepath.Join(h.state, "bookworm")+"/", filepath.Join(dir, "bookworm")))
		other.configure(t, "")
		c := other.drive(t, "prepare", "--id", newID(), "bookworm")
		if c.status != 2 || !strings.Contains(c.stderr, "no space left on device") {
			t.Errorf("%d inodes: exit %d: %s", inodes, c.status, c.stderr)
		}
		other.checkNothingLeft(t)
		shell(t, "umount "+dir)
	}
}

func TestAPlaybookThatCannotBeReadIsNamedWithItsLine(t *testing.T) {
	h := onHost(t, "overlay")
	playbook := filepath.Join(h.playbooks, "bookworm.yaml")
	t.Cleanup(func() { os.Remove(playbook) })
	for text, want := range map[string]string{
		"- hosts: all\n  vars: [\n":                                                   playbook + ":",
		"- hosts: all\n  vars:\n    nspawn_runner_privilged: true\n":                  playbook + ":3: unknown key \"nspawn_runner_privilged\", did you mean nspawn_runner_privileged?",
		"- hosts: all\n  vars:\n    x: 1\n    nspawn_runner_boot_timeout: tomorrow\n": playbook + ":4: nspawn_runner_boot_timeout: want a time like 90s",
	} {
		must(t, os.WriteFile(playbook, []byte(text), 0o644))
		c := h.drive(t, "prepare", "--id", newID(), "bookworm")
		if c.status != 2 {
			t.Errorf("exit %d", c.status)
		}
		wantLog(t, c.stderr, want)
	}
}

func TestAConfigurationWithAnUnknownKeyIsRefusedWithItsLine(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "boot_timeuot: 3s\n")
	t.Cleanup(func() { h.configure(t, "") })
	c := h.drive(t, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("exit %d", c.status)
	}
	wantLog(t, c.stderr, h.config+":4: unknown key \"boot_timeuot\", did you mean boot_timeout?")
}

func TestAPrivilegedImageHasNoUserNamespaceAndSaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		playbook := filepath.Join(h.playbooks, "bookworm.yaml")
		must(t, os.WriteFile(playbook, []byte("- hosts: all\n  vars:\n    nspawn_runner_privileged: true\n"), 0o644))
		t.Cleanup(func() { os.Remove(playbook) })
		r := h.play(t, gitlab.Job{Script: []string{"echo map: $(cat /proc/self/uid_map)", "touch /cache/x"}})
		wantLog(t, r.Log, "root in this job is root on the host", "map: 0 0 4294967295")
		os.RemoveAll(filepath.Join(h.state, ".cache"))
	})
}
