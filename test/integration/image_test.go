package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// needLab skips a test that bootstraps a Debian for real: 20 s in a lab,
// minutes in a VM without KVM.
func needLab(t *testing.T) {
	t.Helper()
	if os.Getenv("NSPAWN_RUNNER_HOST") != "lab" {
		t.Skip("bootstraps for real, and so runs in the lab: 'go tool mage test:lab'")
	}
}

const playbook = `- hosts: all
  vars:
    nspawn_runner_chroot_suite: bookworm
    ansible_become_method: su
  handlers:
    - name: mark
      ansible.builtin.copy: {content: "handled\n", dest: /etc/handled}
  tasks:
    - ansible.builtin.apt: {name: hello, update_cache: true}
      notify: mark
    - ansible.builtin.user: {name: builder}
    - ansible.builtin.command: cat /etc/os-release
      become: true
      become_user: builder
      changed_when: false
`

func TestAnImageIsMadeFromItsPlaybookAndRunsJobs(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	path := filepath.Join(h.playbooks, "fresh.yml")
	must(t, os.WriteFile(path, []byte(playbook), 0o644))
	t.Cleanup(func() { os.Remove(path); h.removeImage(t, "fresh") })

	if c := h.drive(t, "chroot-list"); !strings.Contains(c.stdout, "fresh "+filepath.Join(h.state, "fresh")+"\n") {
		t.Errorf("before: %s", c.stdout)
	}
	if c := h.drive(t, "prepare", "--id", newID(), "fresh"); c.status != 2 || !strings.Contains(c.stderr, "no chroot yet") {
		t.Errorf("prepare before: %+v", c)
	}
	if c := h.drive(t, "chroot-maintenance", "fresh"); c.status != 0 {
		t.Fatalf("%s", c.stderr)
	}
	if c := h.drive(t, "chroot-create", "fresh"); c.status != 1 || !strings.Contains(c.stderr, "exists already") {
		t.Errorf("a second time: %+v", c)
	}
	r := h.play(t, gitlab.Job{Image: gitlab.Image{Name: "debian:fresh"}, Script: []string{
		"hello; cat /etc/handled; id builder; cat /etc/hostname || true",
		"test ! -e /usr/sbin/policy-rc.d",
		"systemctl is-system-running",
	}})
	if r.Status != gitlab.Success {
		t.Errorf("%s", r.Log)
	}
	wantLog(t, r.Log, "Hello, world!", "handled", "builder")
	if c := h.drive(t, "chroot-list", "--json"); !strings.Contains(c.stdout, `"generation": "fresh/`) {
		t.Errorf("%s", c.stdout)
	}
}

func TestAnImageNeedsNoPlaybook(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs")
	t.Cleanup(func() { h.removeImage(t, "plain") })
	h.drives(t, "chroot-create", "--suite", "bookworm", "plain")
	r := h.play(t, gitlab.Job{Image: gitlab.Image{Name: "plain"}, Script: []string{"git --version; systemctl is-system-running"}})
	if r.Status != gitlab.Success {
		t.Errorf("%s", r.Log)
	}
	wantLog(t, r.Log, "git version ", "running")
}

func TestAFailedCreationPublishesAndLeavesNothing(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	path := filepath.Join(h.playbooks, "fails.yaml")
	t.Cleanup(func() { os.Remove(path); h.removeImage(t, "fails") })
	must(t, os.WriteFile(path, []byte("- hosts: all\n  vars: {nspawn_runner_chroot_suite: no-such-suite}\n  tasks: []\n"), 0o644))
	c := h.drive(t, "chroot-create", "fails")
	if c.status != 1 {
		t.Errorf("exit %d", c.status)
	}
	wantLog(t, c.stderr, "image fails: ", "full log: "+filepath.Join(h.state, ".logs"))
	if _, err := os.Lstat(filepath.Join(h.state, "fails")); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was published")
	}
	if trees := shell(t, "ls -d "+filepath.Join(h.state, ".generations", "fails")+"/*/ 2>/dev/null || true"); trees != "" {
		t.Errorf("left: %s", trees)
	}
}

// login opens a chroot-login shell and types into it.
func (h *host) login(t *testing.T, typed string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(h.driver, append([]string{"--config", h.config, "chroot-login"}, args...)...)
	cmd.Stdin = strings.NewReader(typed)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestALoginChangesACopyAndPublishesItOnlyWhenItEndsWell(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		h.addImage(t, "mine", "")
		published := func() bool {
			_, err := os.Stat(filepath.Join(h.state, "mine", "changed"))
			return err == nil
		}
		before := h.prepared(t, "mine")
		if status, out := h.login(t, "touch /changed\nexit 3\n", "mine"); status != 1 || published() || !strings.Contains(out, "discarded") {
			t.Errorf("exit 3: %d, published %v: %s", status, published(), out)
		}
		if status, out := h.login(t, "touch /changed\nexit 0\n", "--discard", "mine"); status != 0 || published() || !strings.Contains(out, "discarded") {
			t.Errorf("--discard: %d, published %v: %s", status, published(), out)
		}
		if status, out := h.login(t, "touch /changed\nexit 0\n", "mine"); status != 0 || !published() || !strings.Contains(out, "published, generation mine/") {
			t.Errorf("exit 0: %d, published %v: %s", status, published(), out)
		}
		// A job that runs keeps its generation.
		if c := h.run(t, before, "test ! -e /changed && echo unchanged"); c.stdout != "unchanged\n" {
			t.Errorf("%+v", c)
		}
		if c := h.run(t, h.prepared(t, "mine"), "ls /changed"); c.stdout != "/changed\n" {
			t.Errorf("%+v", c)
		}
	})
}
