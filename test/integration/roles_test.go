package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The roles in testdata are written for machines that run, as those are which people
// share: they start, restart and reload services, become users and set what only a
// booted system has. One boot, that of the image's own test, shows what came of it. All
// packages are installed at once, which takes half the time.
const machineRoles = `- hosts: all
  become: true
  pre_tasks:
    - ansible.builtin.apt:
        name: [nginx-light, apache2, redis-server, chrony, tzdata, openssh-server, sudo, postgresql]
        install_recommends: false
        update_cache: true
  roles: [agent, nginx, apache, redis, clock, access, database]
  vars:
    nspawn_runner_chroot_suite: bookworm
    nspawn_runner_test: |
      for unit in nginx apache2 redis-server ssh 'postgresql@*-main.service' 'postgresql@*-another.service' agent; do
        systemctl is-active --quiet "$unit" || { systemctl status --no-pager "$unit"; exit 1; }
      done
      systemctl is-enabled --quiet chrony
      for port in 8080 8081 6380 5433; do exec 3<>/dev/tcp/127.0.0.1/$port; done
      test -L /home/agent/.config/systemd/user/default.target.wants/helper.service
      test -e /var/lib/systemd/linger/agent
      test $(readlink /etc/localtime) = /usr/share/zoneinfo/Europe/Rome
      test $(. /etc/default/locale; echo $LANG) = C.UTF-8
      test -z "$(ls /usr/local/sbin)"
`

func TestRolesForRunningMachinesBuildAnImageWhoseServicesRun(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs") // on which the copies of a large image cost nothing
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
	if c := maintain("- {hosts: all, roles: [agent]}\n"); c.status != 0 || !strings.Contains(c.stderr, "roles: up to date") {
		t.Errorf("a second time: %s", c.stderr)
	}
	const server = "- hosts: all\n  gather_facts: false\n  become: true\n  become_user: postgres\n" +
		"  tasks:\n    - ansible.builtin.command: createuser ci\n    - ansible.builtin.command: createdb --owner ci jobs\n"
	c := maintain(server)
	if c.status != 1 || !strings.Contains(c.stderr, "nothing is booted in this build; with nspawn_runner_build: booted") {
		t.Errorf("a task that needs a server: %s", c.stderr)
	}
	if c := maintain(strings.ReplaceAll(server, "createuser ci\n", "createuser {{ item }}\n      loop: [ci]\n      no_log: true\n")); c.status != 1 || !strings.Contains(c.stderr, "its output is hidden by no_log; if it needs a running service, nspawn_runner_build: booted") {
		t.Errorf("a task whose output is hidden: %s", c.stderr)
	}
	if c := maintain(server + "  vars:\n    nspawn_runner_build: booted\n"); c.status != 0 || !strings.Contains(c.stderr, "roles: published") {
		t.Fatalf("booted: %s", c.stderr)
	}
	if c := h.run(t, h.prepared(t, "roles"), "cd /; runuser -u postgres -- psql -Atc \"select datname, datdba::regrole from pg_database where datname = 'jobs'\""); c.stdout != "jobs|ci\n" {
		t.Errorf("a job's database: %+v", c)
	}
}
