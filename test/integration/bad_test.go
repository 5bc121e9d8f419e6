package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	h := onHost(t, "overlay")
	h.configure(t, "boot_timeout: 6s\n")
	t.Cleanup(func() { h.configure(t, "") })
	h.addImage(t, "hangs", hang)
	start := time.Now()
	c := h.drive(t, "prepare", "--id", newID(), "hangs")
	if c.status != 2 || time.Since(start) > 30*time.Second {
		t.Errorf("exit %d after %v", c.status, time.Since(start))
	}
	wantLog(t, c.stderr, "did not come up within 6s (boot_timeout)", "still starting: hangs.service")
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
	if c := h.run(t, id, "cp /bin/true /usr/bin/bash.new && mv /usr/bin/bash.new /usr/bin/bash"); c.status != 0 {
		t.Fatalf("%+v", c)
	}
	if c := h.run(t, id, "echo x; exit 3"); c.status == 0 {
		t.Errorf("%+v", c)
	}
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
		r := h.playOn(t, h.allowing("bookworm"), gitlab.Job{Script: []string{"echo map: $(cat /proc/self/uid_map)", "touch /cache/x"}})
		wantLog(t, r.Log, "root in this job is root on the host", "map: 0 0 4294967295")
		os.RemoveAll(filepath.Join(h.state, ".cache"))
	})
}
