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

// database is the unit of a service that keeps in memory what it is told, and writes it
// when it is told to stop: slowly, as databases do. Killed, it loses all of it.
const database = `[Service]
ExecStart=/bin/sh -c 'trap "sleep 1; cat /run/told >>/var/lib/kept; exit" TERM; while :; do sleep 0.1; done'
[Install]
WantedBy=multi-user.target
`

// withDatabase are the tasks of a playbook whose services must run.
var withDatabase = []string{
	wrote(database, "/etc/systemd/system/database.service"),
	"- ansible.builtin.systemd: {name: database, state: started, enabled: true, daemon_reload: true}",
	"- ansible.builtin.shell: systemctl is-active database && echo ${0} is told >/run/told\n  changed_when: false",
}

// bootedBook is the playbook of an image whose build is booted.
func (h *host) bootedBook(t *testing.T, name string, tasks ...string) {
	t.Helper()
	h.book(t, name, "nspawn_runner_build: booted", tasks...)
}

func TestAPlaybookOfABootedBuildHasServicesThatRunAndAJobWhatTheyWrote(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.addImage(t, "booted", "mkdir -p var/log/journal; rm -f etc/resolv.conf; ln -s ../run/nowhere etc/resolv.conf")
	etc := shell(t, "cd "+h.state+"/booted/etc && cat hosts && readlink resolv.conf")
	h.book(t, "booted", "nspawn_runner_build: booted\nnspawn_runner_network: none\nnspawn_runner_binds: [/usr/share/doc:/srv/shown/doc]", append(withDatabase,
		"- ansible.builtin.copy: {content: '# once', dest: /etc/database.conf}\n  notify: again",
		"- ansible.builtin.shell:\n    cmd: |\n      set -e; test \"$(systemctl is-system-running)\" = running; echo works >/dev/stderr\n      test $(hostname) = booted; test -d /srv/shown/doc; grep -q ' booted$' /etc/hosts\n      loginctl enable-linger nobody; timedatectl set-timezone Asia/Tokyo\n      grep -q '0::/nspawn-runner$' /proc/self/cgroup; test \"$(grep CapBnd /proc/self/status)\" = \"$(grep CapBnd /proc/1/status)\"\n  changed_when: false",
	)...)
	path := filepath.Join(h.playbooks, "booted.yaml")
	text, err := os.ReadFile(path)
	must(t, err, os.WriteFile(path, append(text, "  handlers:\n    - name: again\n      ansible.builtin.service: {name: database, state: restarted}\n"...), 0o644))

	began := time.Now()
	if c := h.drive(t, "chroot-maintenance", "booted"); c.status != 0 || !strings.Contains(c.stderr, "booted: published, generation booted/") {
		t.Fatalf("%+v", c)
	}
	t.Logf("a booted maintenance: %v", time.Since(began))
	id := h.prepared(t, "booted")
	c := h.run(t, id, "systemctl is-active database; cat /var/lib/kept; readlink /etc/localtime; ls /var/lib/systemd/linger")
	if c.stdout != "active\nsh is told\nsh is told\n../usr/share/zoneinfo/Asia/Tokyo\nnobody\n" {
		t.Errorf("a job: %+v", c)
	}
	// Of the boot nothing is left: names, resolver, identity, journal, mount points.
	left := shell(t, "cd "+h.state+"/booted/ && (cd etc && cat hosts && readlink resolv.conf); cat etc/machine-id; ls -A var/log/journal tmp var/tmp etc/apt/apt.conf.d srv | grep -v -e '^$' -e ':$' -e '^[0-9][0-9][a-mo-z]' -e ^70debconf || true")
	if left != etc {
		t.Errorf("left: %s\nbefore: %s", left, etc)
	}
	if c := h.drives(t, "chroot-maintenance", "booted"); !strings.Contains(c.stderr, "booted: up to date") {
		t.Errorf("a second maintenance: %s", c.stderr)
	}
}

func TestWhatEndsABootedBuildIsNamedAndNothingOfItsMachineStays(t *testing.T) {
	needLab(t)
	for _, backend := range []string{"overlay", "btrfs"} {
		h := onHost(t, backend)
		h.addImage(t, "ended", "")
		for _, test := range []struct {
			tasks []string
			want  string
		}{
			{append(withDatabase, "- name: the task that fails\n  ansible.builtin.command: \"false\""), `task "the task that fails": non-zero return code`},
			{[]string{raw(`mkdir -p /run/systemd/system && printf '[Service]\nExecStart=/bin/sh -c "trap : TERM; while :; do sleep 1; done"\nTimeoutStopSec=1\n' >/run/systemd/system/deaf.service && systemctl start deaf`)},
				"shut machine run-build-"},
			{[]string{raw("systemctl reboot")}, "Unit reboot.target is masked"},
			{[]string{raw("systemctl poweroff; sleep 60")}, "a playbook cannot reboot or shut down what it builds"},
		} {
			h.bootedBook(t, "ended", test.tasks...)
			c := h.drive(t, "chroot-maintenance", "ended")
			if c.status != 1 || !h.failedTree("ended") {
				t.Errorf("exit %d, failed tree %v", c.status, h.failedTree("ended"))
			}
			wantLog(t, c.stderr, "image ended: playbook ", test.want, "'nspawn-runner chroot-login --failed ended' opens its tree")
			switch {
			case strings.HasPrefix(test.want, "task"):
				// It was shut down all the same, so that what is looked at is whole.
				if kept := shell(t, "cat "+h.state+"/.generations/ended/.failed/var/lib/kept"); kept != "sh is told\n" {
					t.Errorf("kept: %q", kept)
				}
			case strings.HasPrefix(test.want, "shut"):
				wantLog(t, c.stderr, "systemd killed what did not stop by itself: deaf.service (timeout)")
			}
			h.checkNothingLeft(t)
			if backend != "overlay" {
				break
			}
		}
	}
}

func TestABootedBuildThatIsStoppedOrKilledLeavesNothing(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.addImage(t, "killed", "")
	h.bootedBook(t, "killed", raw("touch /ready; sleep 600"))
	next := map[string]func(){
		"gc":             func() { h.drives(t, "gc") },
		"the next build": func() { h.bootedBook(t, "killed"); h.drives(t, "chroot-maintenance", "killed") },
	}
	for _, test := range []struct {
		signal os.Signal
		next   string
	}{{os.Interrupt, ""}, {os.Kill, "gc"}, {os.Kill, "the next build"}} {
		cmd := exec.Command(h.driver, "--config", h.config, "chroot-maintenance", "killed")
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		await(t, "the playbook to run", func() bool {
			ready, _ := filepath.Glob(filepath.Join(h.state, ".generations/killed/*/ready"))
			return len(ready) > 0
		})
		if list := h.drives(t, "machine", "list").stdout; !strings.Contains(list, "\nbuild-") || !strings.Contains(list, "in-place") {
			t.Errorf("machines: %s", list)
		}
		must(t, cmd.Process.Signal(test.signal))
		_ = cmd.Wait()
		if test.next != "" {
			next[test.next]()
		}
		h.checkNothingLeft(t)
		if trees, _ := filepath.Glob(filepath.Join(h.state, ".generations/killed/*/ready")); len(trees) > 0 || h.failedTree("killed") {
			t.Errorf("after %v and %s: %q are left", test.signal, test.next, trees)
		}
	}
}

func TestAKillAtAnyMarkOfABootedBuildIsMendedByTheNextOne(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.addImage(t, "marked", "")
	h.bootedBook(t, "marked", raw("echo new >/etc/version"))
	for _, mark := range []string{"machine: record written, running", "image: booted", "machine: about to shut down", "machine: shut down", "machine: out of the index", "image: shut down"} {
		cmd := exec.Command(faults(), "--config", h.config, "chroot-maintenance", "marked")
		cmd.Env = append(os.Environ(), killAt(mark))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "killed at: "+mark) {
			t.Errorf("%s: not killed: %s", mark, out)
		}
		h.collect(t)
		h.checkNothingLeft(t)
		if left := shell(t, fmt.Sprintf("ls %s/.generations/marked", h.state)); left != "20260101T000000Z\n" {
			t.Errorf("killed at %q, left: %s", mark, left)
		}
	}
}
