package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootedBook writes the playbook of an image whose build is booted: more of its vars,
// tasks, and what comes after them. None of its tasks always changes something.
func (h *host) bootedBook(t *testing.T, name, vars, tasks, more string) {
	t.Helper()
	text := "- hosts: all\n  gather_facts: false\n  vars:\n    nspawn_runner_chroot_suite: bookworm\n    nspawn_runner_build: booted\n" +
		indented("    ", vars) + "  tasks:\n" + indented("    ", tasks) + more
	path := filepath.Join(h.playbooks, name+".yaml")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	t.Cleanup(func() { os.Remove(path) })
}

// withDatabase are tasks with a service that keeps in memory what it is told, and writes
// it when it is told to stop: slowly, as databases do. Killed, it loses all of it.
const withDatabase = `- ansible.builtin.copy:
    dest: /etc/systemd/system/database.service
    content: |
      [Service]
      ExecStartPre=rm -f /run/trapped
      ExecStart=/bin/sh -c 'trap "sleep 1; cat /run/told >>/var/lib/kept; exit" TERM; touch /run/trapped; while :; do sleep 0.1; done'
      ExecStartPost=/bin/sh -c 'until test -e /run/trapped; do sleep 0.1; done'
      [Install]
      WantedBy=multi-user.target
  notify: again
- ansible.builtin.systemd: {name: database, state: started, enabled: true, daemon_reload: true}
- ansible.builtin.shell: systemctl is-active database && echo told >/run/told
  changed_when: false
`

// again is their handler.
const again = "  handlers:\n    - name: again\n      ansible.builtin.service: {name: database, state: restarted}\n"

// seenInside is a task that looks at what a machine of a build is like.
const seenInside = `- ansible.builtin.shell:
    cmd: |
      set -ex
      test $(hostname) = booted; grep -qw booted /etc/hosts
      loginctl enable-linger nobody; timedatectl set-timezone Asia/Tokyo
      sysctl -w vm.swappiness=10 net.ipv4.ip_forward=1; test $(cat /proc/sys/net/ipv4/ip_forward) = 1
      echo 'vm.swappiness = 10' >/etc/sysctl.d/own.conf; test $(sysctl -e -n vm.swappiness) = 10; rm /etc/sysctl.d/own.conf
      test -d /srv/shown/doc; echo works >/dev/stderr
      grep -q '0::/nspawn-runner$' /proc/self/cgroup
      test "$(grep CapBnd /proc/self/status)" = "$(grep CapBnd /proc/1/status)"
      python3 -c "import urllib.request as u; assert u.urlopen('http://nowhere.example/').read() == b'relayed'"
  changed_when: false
# The way of rsync, which synchronize of ansible.posix calls.
- ansible.builtin.shell: test "$(echo in | {{ ansible_podman_executable }} exec -u nobody -i {{ ansible_host }} id -un \; cat)" = "$(printf 'nobody\nin')"
  delegate_to: localhost
  changed_when: false
- ansible.builtin.command: id -u
  when: ansible_connection == 'machine'
  become: true
  become_user: nobody
  changed_when: false
`

func TestAPlaybookOfABootedBuildHasServicesThatRunAndAJobWhatTheyWrote(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs")
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "relayed") }))
	defer proxy.Close()
	h.configure(t, "environment: {http_proxy: \""+proxy.URL+"\"}\n")
	defer h.configure(t, "")
	h.addImage(t, "booted", "mkdir -p var/log/journal; rm -f etc/resolv.conf; ln -s ../run/nowhere etc/resolv.conf")
	h.bootedBook(t, "booted", "nspawn_runner_network: none\nnspawn_runner_binds: [/usr/share/doc:/srv/shown/doc]", withDatabase+seenInside,
		again)
	// Of a boot nothing is left: no names, resolver, identity, journal, drop-ins, mount points.
	left := func() string {
		return shell(t, "cd "+h.state+"/booted/ && cat etc/hosts etc/machine-id; readlink etc/resolv.conf; find tmp var/tmp srv var/log/journal etc/apt/apt.conf.d etc/systemd -mindepth 1 ! -name '*database*' | sort")
	}
	shell(t, ": >"+h.state+"/booted/etc/machine-id")
	before := left()
	began := time.Now()
	if c := h.drive(t, "chroot-maintenance", "booted"); c.status != 0 || !strings.Contains(c.stderr, "booted: published, generation booted/") {
		t.Fatalf("%+v", c)
	} else if !strings.Contains(c.stderr, " tasks: ansible.builtin.copy, ansible.builtin.systemd, again\n") {
		t.Errorf("which tasks changed something? %s", c.stderr)
	}
	t.Logf("a booted maintenance: %v", time.Since(began))
	if after := left(); after != before {
		t.Errorf("left: %s\nbefore: %s", after, before)
	}
	c := h.run(t, h.prepared(t, "booted"), "systemctl is-active database; cat /var/lib/kept; readlink /etc/localtime; ls /var/lib/systemd/linger")
	if c.stdout != "active\ntold\ntold\n../usr/share/zoneinfo/Asia/Tokyo\nnobody\n" {
		t.Errorf("a job: %+v", c)
	}
	if c := h.drives(t, "chroot-maintenance", "booted"); !strings.Contains(c.stderr, "booted: up to date") {
		t.Errorf("a second maintenance: %s", c.stderr)
	}
}

func TestABootedBuildThatFailsIsShutDownAndSaysOfWhat(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs")
	h.addImage(t, "ended", "")
	kept := func() string { return shell(t, "cat "+h.state+"/.generations/ended/.failed/var/lib/kept 2>&1 || true") }
	for _, test := range []struct {
		vars, tasks string
		want        []string
	}{
		{"", withDatabase + "- name: the task that fails\n  ansible.builtin.command: systemctl reboot",
			[]string{`task "the task that fails": non-zero return code`, "Call to Reboot failed: Access denied; what is built is not rebooted"}},
		{"nspawn_runner_privileged: true", raw(`cd /run/systemd/system && printf '[Service]\nExecStart=/bin/sh -c "trap : TERM; while :; do sleep 1; done"\nTimeoutStopSec=1\n' >deaf.service && systemctl start deaf`),
			[]string{": shut machine run-build-", " down: systemd killed what did not stop by itself: deaf.service (timeout)"}},
		{"", "- ansible.builtin.copy: {dest: /etc/systemd/system/hasty.service, content: \"[Service]\\nType=oneshot\\nExecStart=/bin/sh -c 'echo no such option; exit 1'\\n\"}\n" +
			"- ansible.builtin.systemd: {name: hasty, state: started, daemon_reload: true}",
			[]string{"Job for hasty.service failed", "the last lines of its machine's journal:\n  ", ": no such option\n"}},
		// Its shutdown stops nsenter, which nobody else would continue.
		{"nspawn_runner_network: host", raw("systemctl --force poweroff; sleep 600"), []string{"machine"}},
	} {
		h.bootedBook(t, "ended", test.vars, test.tasks+"\n", again)
		c := h.drive(t, "chroot-maintenance", "ended")
		if c.status != 1 || !h.failedTree("ended") {
			t.Errorf("exit %d, failed tree %v", c.status, h.failedTree("ended"))
		}
		wantLog(t, c.stderr, append(test.want, "image ended: playbook ", "'nspawn-runner chroot-login --failed ended' opens its tree")...)
		if strings.HasPrefix(test.tasks, withDatabase) && kept() != "told\n" {
			t.Errorf("kept: %q", kept())
		}
		h.checkNothingLeft(t)
	}
}

func TestABootedBuildThatIsStoppedOrKilledLeavesNothing(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs")
	h.addImage(t, "killed", "")
	for _, signal := range []os.Signal{os.Interrupt, os.Kill} {
		h.bootedBook(t, "killed", "", raw("touch /ready; sleep 600")+"\n", "")
		cmd := exec.Command(h.driver, "--config", h.config, "chroot-maintenance", "killed")
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		ready := filepath.Join(h.state, ".generations/killed/*/ready")
		await(t, "the playbook to run", func() bool { there, _ := filepath.Glob(ready); return len(there) > 0 })
		if list := h.drives(t, "machine", "list").stdout; !strings.Contains(list, "\nbuild-") || !strings.Contains(list, "in-place") {
			t.Errorf("machines: %s", list)
		}
		must(t, cmd.Process.Signal(signal))
		_ = cmd.Wait()
		if signal == os.Kill { // the next build ends the machine before it removes its root
			h.bootedBook(t, "killed", "", raw("true")+"\n", "")
			h.drives(t, "chroot-maintenance", "killed")
		}
		h.checkNothingLeft(t)
		if there, _ := filepath.Glob(ready); len(there) > 0 || h.failedTree("killed") {
			t.Errorf("after %v: %q are left", signal, there)
		}
	}
}

func TestAKillAtAMarkOfABootedBuildIsMendedByGC(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs")
	h.addImage(t, "marked", "")
	h.bootedBook(t, "marked", "", raw("echo new >/etc/version")+"\n", "")
	for _, mark := range []string{"image: booted", "machine: shut down", "image: shut down"} {
		cmd := exec.Command(faults(), "--config", h.config, "chroot-maintenance", "marked")
		cmd.Env = append(os.Environ(), killAt(mark))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "killed at: "+mark) {
			t.Errorf("%s: not killed: %s", mark, out)
		}
		h.collect(t)
		h.checkNothingLeft(t)
		if left := shell(t, "ls "+h.state+"/.generations/marked"); left != "20260101T000000Z\n" {
			t.Errorf("killed at %q, left: %s", mark, left)
		}
	}
}
