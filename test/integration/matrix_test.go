package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// matrixPlaybook makes of an image of a release one that is a service too. Its tasks use
// modules of Ansible that need Python, apt and systemd in the image: which of its releases
// knows which of Python's is a question of both.
const matrixPlaybook = `- hosts: all
  vars:
    nspawn_runner_chroot_suite: %[1]s
    nspawn_runner_aliases: ["debian:%[1]s"]
    nspawn_runner_service: ["web:*"]
    nspawn_runner_service_start: |
      mkdir /srv/www; echo "$GREETING" >/srv/www/index.html
      systemd-run --quiet --unit=web python3 -m http.server --directory /srv/www 80
    nspawn_runner_ready: python3 -c 'import socket; socket.create_connection(("localhost", 80))'
    nspawn_runner_test: |
      grep "Debian %[1]s" /etc/matrix
      id -u builder
      test -e /usr/share/doc/hello
  tasks:
    - ansible.builtin.apt: {name: hello, update_cache: true, install_recommends: false}
    - ansible.builtin.user: {name: builder, create_home: true}
    - ansible.builtin.template: {src: %[2]s, dest: /etc/matrix}
    - ansible.builtin.systemd: {name: systemd-networkd, enabled: false}
    - ansible.builtin.shell: hello
`

// TestEachReleaseBuildsAndRunsOnEachBackend is one row of the table of mage test:matrix: the
// host is of one release, its images are of all of them.
func TestEachReleaseBuildsAndRunsOnEachBackend(t *testing.T) {
	trees := os.Getenv("NSPAWN_RUNNER_MATRIX")
	if trees == "" {
		t.Skip("needs trees of several releases: run 'go tool mage test:matrix'")
	}
	images, err := os.ReadDir(trees)
	must(t, err)
	for _, image := range images {
		for _, backend := range backends {
			t.Run(image.Name()+"/"+backend, func(t *testing.T) {
				h := matrixHost(t, backend)
				h.copyImage(t, image.Name(), filepath.Join(trees, image.Name()))
				t.Cleanup(func() { h.removeImage(t, image.Name()) })
				h.buildsIt(t, image.Name())
				h.runsItsJobs(t, image.Name())
			})
		}
	}
}

// matrixHost is the host with a backend, and a gitlab-runner that its machines can use.
func matrixHost(t *testing.T, backend string) *host {
	t.Helper()
	installMu.Lock()
	h := place(t, backend)
	installMu.Unlock()
	h.before = h.leftovers(t)
	t.Cleanup(func() { h.checkNothingLeft(t) })
	program := filepath.Join(t.TempDir(), "gitlab-runner")
	must(t, os.WriteFile(program, []byte(standIn), 0o755))
	h.configure(t, "gitlab_runner: "+program+"\n")
	t.Cleanup(func() { os.RemoveAll(filepath.Join(h.state, ".cache")) })
	return h
}

// buildsIt maintains an image: the new generation has what its playbook says, and boots.
func (h *host) buildsIt(t *testing.T, image string) {
	t.Helper()
	template := filepath.Join(t.TempDir(), "matrix.j2")
	must(t, os.WriteFile(template, []byte("{{ ansible_facts.distribution }} "+image+"\n"), 0o644))
	path := filepath.Join(h.playbooks, image+".yaml")
	must(t, os.WriteFile(path, []byte(fmt.Sprintf(matrixPlaybook, image, template)), 0o644))
	t.Cleanup(func() { os.Remove(path) })
	c := h.drive(t, "chroot-maintenance", image)
	if c.status != 0 || !strings.Contains(c.stderr, image+": published, generation") {
		t.Fatalf("maintenance: exit %d: %s", c.status, c.stderr)
	}
}

// runsItsJobs plays jobs that use what jobs can use: one that leaves files to the next one,
// and one that fails.
func (h *host) runsItsJobs(t *testing.T, image string) {
	t.Helper()
	outside := openDoor(t, "tcp4", ownAddress(t)+":0")
	inside := openDoor(t, "tcp4", "127.0.0.1:0")
	job := gitlab.Job{
		Image: gitlab.Image{Name: "registry.example.org/debian:" + image},
		Services: []gitlab.Image{
			{Name: "web:1", Variables: serviceVariables("GREETING", "hello from the service")},
		},
		Script: []string{
			"words=(one two); [[ ${#words[@]} = 2 ]]", // bash
			"echo release: $(cat /etc/matrix) state=$(systemctl is-system-running) root=$(id -u) at $(awk '{print ($2 > 0)}' /proc/self/uid_map)",
			"echo service: $(" + fetch("http://web/") + ")",
			"echo outside: $(" + ask(ownAddress(t), outside.port(t)) + ")",
			"echo inside: $(" + ask("127.0.0.1", inside.port(t)) + ")",
			`echo resolved: $(getent ahosts $(sed -n 's|^deb .*http://\([^/]*\).*|\1|p' /etc/apt/sources.list | head -n 1) | wc -l)`,
			"echo nested: $(unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c 'mount -t tmpfs none /mnt && echo $$')",
			"echo cached: $(cat kept/file 2>/dev/null || echo nothing)",
			"mkdir -p kept; echo from-the-first >kept/file",
			"head -c 20M /dev/zero | tail -c 1 >/dev/null",
		},
		AfterScript: []string{"echo after the script"},
		Artifacts:   []gitlab.Artifact{{Paths: []string{"kept"}}},
		Cache:       []gitlab.Cache{{Key: "k", Paths: []string{"kept"}}},
	}
	for _, cached := range []string{"nothing", "from-the-first"} {
		job.ID = newNumber()
		r := h.play(t, job)
		if r.Status != gitlab.Success || !used.MatchString(r.Log) {
			t.Fatalf("%s: %s", r.Status, r.Log)
		}
		wantLog(t, r.Log, "release: Debian "+image+" state=running root=0 at 1\n", "service: page hello from the service\n",
			"outside: the host\n", "inside: no\n", "nested: 1\n", "cached: "+cached+"\n", "after the script\n",
			"stand-in gitlab-runner artifacts-uploader", "stand-in gitlab-runner cache-archiver")
		if strings.Contains(r.Log, "resolved: 0\n") || inside.count() > 0 {
			t.Error(r.Log)
		}
	}
	r := h.play(t, gitlab.Job{Image: gitlab.Image{Name: image}, Script: []string{"exit 42"}})
	if r.Reason != gitlab.ScriptFailure || r.ExitCode != 42 {
		t.Errorf("%s, exit code %d: %s", r.Reason, r.ExitCode, r.Log)
	}
}
