package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// book writes the playbook of an image: further lines of its vars, and tasks.
func (h *host) book(t *testing.T, name, vars string, tasks ...string) {
	t.Helper()
	text := "- hosts: all\n  gather_facts: false\n  vars:\n    nspawn_runner_chroot_suite: bookworm\n" +
		indented("    ", vars) + "  tasks:\n    - ansible.builtin.command: \"true\"\n" + indented("    ", strings.Join(tasks, "\n"))
	path := filepath.Join(h.playbooks, name+".yaml")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	t.Cleanup(func() { os.Remove(path) })
}

func indented(by, text string) string {
	var out strings.Builder
	for line := range strings.Lines(strings.TrimSuffix(text, "\n") + "\n") {
		if line != "\n" {
			out.WriteString(by + line)
		}
	}
	return out.String()
}

// failedTree says whether the tree of a failed build of an image is there.
func (h *host) failedTree(name string) bool {
	_, err := os.Stat(filepath.Join(h.state, ".generations", name, ".failed"))
	return err == nil
}

// wrote copies a file into the image, which is a change.
func wrote(content, to string) string {
	return fmt.Sprintf("- ansible.builtin.copy: {content: %q, dest: %s}", content, to)
}

func TestAGenerationThatDoesNotBootIsNotPublishedAndCanBeLookedAt(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		h.addImage(t, "boots", "")
		const unit = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
		h.book(t, "boots", "nspawn_runner_boot_timeout: 6s",
			wrote(unit, "/etc/systemd/system/hangs.service"),
			"- ansible.builtin.command: systemctl enable hangs.service")
		c := h.drive(t, "chroot-maintenance", "boots")
		if c.status != 1 {
			t.Errorf("exit %d", c.status)
		}
		wantLog(t, c.stderr, "image boots: test: ", "did not come up within 6s (boot_timeout)", "still starting: hangs.service",
			"'nspawn-runner chroot-login --failed boots' opens its tree")
		h.book(t, "boots", "") // jobs have their usual time again
		if c := h.run(t, h.prepared(t, "boots"), "ls /etc/systemd/system/hangs.service"); c.status != 1 {
			t.Errorf("a job has it: %+v", c)
		}
		status, out := h.login(t, "ls /etc/systemd/system/hangs.service; systemctl disable hangs.service; exit 3\n", "--failed", "boots")
		if status != 0 || !strings.Contains(out, "\n/etc/systemd/system/hangs.service\n") || !h.failedTree("boots") {
			t.Errorf("login: %d: %s", status, out)
		}
		wantLog(t, h.drives(t, "chroot-show", "boots").stdout, "chroot-login --failed boots opens its tree")
		if c := h.drives(t, "chroot-maintenance", "boots"); h.failedTree("boots") {
			t.Errorf("the failed tree outlived a build that is well: %s", c.stderr)
		}
		if status, out := h.login(t, "", "--failed", "boots"); status != 1 || !strings.Contains(out, "no failed build to look at") {
			t.Errorf("login: %d: %s", status, out)
		}
	})
}

func TestAnImagesOwnTestDecidesOnItsPublication(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.addImage(t, "tested", "")
	h.book(t, "tested", "nspawn_runner_test: |\n  echo once\n  cat /etc/good\n  echo never seen", wrote("one", "/etc/other"))
	c := h.drive(t, "chroot-maintenance", "tested")
	if c.status != 1 || strings.Contains(c.stderr, "never seen") {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "image tested: test: nspawn_runner_test ended with exit code 1: once; cat: /etc/good: No such file or directory (full log: ")

	const good = "nspawn_runner_test: |\n  test \"$(cat /etc/good)\" = good\n  systemctl is-system-running\n  test ! -e /cache -a ! -e /usr/local/bin/gitlab-runner"
	h.book(t, "tested", good, wrote("good", "/etc/good"))
	began := time.Now()
	if c := h.drives(t, "chroot-maintenance", "tested"); !strings.Contains(c.stderr, "tested: published, generation tested/") {
		t.Errorf("%s", c.stderr)
	}
	t.Logf("a maintenance with a test: %v", time.Since(began))
	if status, out := h.login(t, "rm /etc/good\n", "tested"); status != 1 || strings.Contains(out, "discarded") || !strings.Contains(out, "--failed tested' opens its tree") {
		t.Errorf("a login after which the test fails: %d: %s", status, out)
	}
	if c := h.run(t, h.prepared(t, "tested"), "cat /etc/good"); c.stdout != "good" {
		t.Errorf("%+v", c)
	}
	// A first creation has no image to fall back on, but a tree to look at.
	if c := h.drives(t, "chroot-remove", "tested"); h.failedTree("tested") {
		t.Errorf("the failed tree outlived its image: %s", c.stderr)
	}
}

// A build dies with its process; its test's machine is collected by who comes next.
func TestTheMachineOfATestThatWasStoppedOrKilledIsRemoved(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.addImage(t, "slow", "")
	h.book(t, "slow", "nspawn_runner_test: echo waiting; sleep 600", wrote("one", "/etc/one"))
	machines := func() string { return strings.TrimSpace(h.drives(t, "machine", "list").stdout) }
	for _, signal := range []os.Signal{os.Interrupt, os.Kill} {
		cmd := exec.Command(h.driver, "--config", h.config, "chroot-maintenance", "slow")
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		await(t, "the test to run", func() bool {
			logs, _ := filepath.Glob(filepath.Join(h.state, ".logs", "slow-*.log"))
			if len(logs) == 0 {
				return false
			}
			text, _ := os.ReadFile(logs[len(logs)-1])
			return strings.Contains(string(text), "waiting\n")
		})
		if !strings.Contains(machines(), "\ntest-") {
			t.Errorf("machines: %s", machines())
		}
		must(t, cmd.Process.Signal(signal))
		_ = cmd.Wait()
		shell(t, "rm -f "+filepath.Join(h.state, ".logs", "slow-")+"*")
		h.prepared(t, "bookworm") // collects
		if strings.Contains(machines(), "test-") || h.failedTree("slow") {
			t.Errorf("after %v: failed tree %v, machines: %s", signal, h.failedTree("slow"), machines())
		}
	}
}
