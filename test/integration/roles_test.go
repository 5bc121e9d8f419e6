package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The roles in testdata are written for machines that run, as those are which people
// share: they start, restart and reload services, become users and set what only a
// booted system has. One boot, that of the image's own test, shows what came of it.
const machineRoles = `- hosts: all
  become: true
  pre_tasks:
    - ansible.builtin.apt: {update_cache: true}
      changed_when: false
  roles: [agent, nginx, apache, redis, clock, access, database]
  vars:
    nspawn_runner_chroot_suite: bookworm
    nspawn_runner_test: |
      for unit in nginx apache2 redis-server ssh postgresql@15-main postgresql@15-another agent; do
        systemctl is-active --quiet $unit || { systemctl status --no-pager $unit; exit 1; }
      done
      systemctl is-enabled --quiet chrony
      for port in 8080 8081 6380 5433; do exec 3<>/dev/tcp/127.0.0.1/$port; done
      test -L /home/agent/.config/systemd/user/default.target.wants/helper.service
      test -e /var/lib/systemd/linger/agent
      test $(readlink /etc/localtime) = /usr/share/zoneinfo/Europe/Rome
      test ! -e /usr/local/sbin/systemctl
`

func TestRolesForRunningMachinesBuildAnImageWhoseServicesRun(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	t.Setenv("ANSIBLE_ROLES_PATH", filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "roles"))
	path := filepath.Join(h.playbooks, "roles.yaml")
	t.Cleanup(func() { os.Remove(path) })
	maintain := func(text string) call {
		t.Helper()
		must(t, os.WriteFile(path, []byte(text), 0o644))
		return h.drive(t, "chroot-maintenance", "roles")
	}
	h.addImage(t, "roles", "")
	if c := maintain(machineRoles); c.status != 0 || !strings.Contains(c.stderr, "roles: published") {
		t.Fatalf("%s", c.stderr)
	}
	// A failure that a rescue answered is no change.
	if c := maintain(machineRoles); c.status != 0 || !strings.Contains(c.stderr, "roles: up to date") {
		t.Errorf("a second time: %s", c.stderr)
	}
	c := maintain("- hosts: all\n  gather_facts: false\n  become: true\n  become_user: postgres\n" +
		"  tasks:\n    - ansible.builtin.command: psql -c 'select 1'\n")
	if c.status != 1 || !strings.Contains(c.stderr, "nothing is booted in this build; with nspawn_runner_build: booted") {
		t.Errorf("a task that needs a server: %s", c.stderr)
	}
}
