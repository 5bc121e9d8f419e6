package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// drives calls the driver, which must end well, and returns what it printed.
func (h *host) drives(t *testing.T, args ...string) call {
	t.Helper()
	c := h.drive(t, args...)
	if c.status != 0 {
		t.Fatalf("%q: exit %d: %s", args, c.status, c.stderr)
	}
	return c
}

func TestAnImageIsRolledBackPrunedAndRemovedWhileJobsRun(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		h.addImage(t, "rolled", "")
		oldest := h.prepared(t, "rolled")
		if status, out := h.login(t, "touch /changed\necho fine > /etc/motd\n", "rolled"); status != 0 {
			t.Fatalf("%d: %s", status, out)
		}
		newer := h.prepared(t, "rolled")

		h.drives(t, "chroot-rollback", "rolled")
		if c := h.run(t, h.prepared(t, "rolled"), "test ! -e /changed && echo older"); c.stdout != "older\n" {
			t.Errorf("a job after the rollback: %+v", c)
		}
		if c := h.drive(t, "chroot-rollback", "rolled"); c.status != 1 || !strings.Contains(c.stderr, "no older generation") {
			t.Errorf("a second rollback: %+v", c)
		}
		if c := h.drives(t, "chroot-prune", "--keep", "1", "rolled"); !strings.Contains(c.stderr, "is in use by jobs") {
			t.Errorf("prune: %s", c.stderr)
		}

		h.drives(t, "chroot-remove", "rolled")
		if c := h.drive(t, "prepare", "--id", newID(), "rolled"); c.status != 1 || !strings.Contains(c.stderr, "no such image") {
			t.Errorf("a job after the removal: %+v", c)
		}
		for id, want := range map[string]string{oldest: "absent\n", newer: "/changed\n"} {
			if c := h.run(t, id, "ls /changed 2>/dev/null || echo absent; systemctl is-system-running >/dev/null"); c.stdout != want {
				t.Errorf("a job that ran all the time: %+v", c)
			}
			if c := h.drive(t, "cleanup", "--id", id); c.status != 0 {
				t.Errorf("%+v", c)
			}
		}
		h.drives(t, "chroot-prune")
		left := strings.TrimSpace(shell(t, "ls -d "+filepath.Join(h.state, ".generations", "rolled")+"/*/"))
		if !strings.HasSuffix(left, "/20260101T000000Z/") || strings.Contains(left, "\n") {
			t.Errorf("the third job's generation should be there, and it alone: %s", left)
		}
	})
}

// maintainable only changes what it is told to, through variables of the test.
const maintainable = `- hosts: all
  vars: {nspawn_runner_chroot_suite: bookworm}
  tasks:
    - ansible.builtin.copy: {content: "CONTENT\n", dest: /etc/maintained}
    - ansible.builtin.command: "COMMAND"
      changed_when: false
`

func TestAMaintenanceSaysWhatItChangedAndPublishesNothingIfThatIsNothing(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		h.addImage(t, "kept", "")
		path := filepath.Join(h.playbooks, "kept.yaml")
		t.Cleanup(func() { os.Remove(path) })
		play := func(content, command string) {
			text := strings.NewReplacer("CONTENT", content, "COMMAND", command).Replace(maintainable)
			must(t, os.WriteFile(path, []byte(text), 0o644))
		}
		maintain := func(want string) {
			t.Helper()
			if c := h.drives(t, "chroot-maintenance", "kept"); !strings.Contains(c.stderr, want) {
				t.Errorf("want %q in: %s", want, c.stderr)
			}
		}
		var long []struct {
			Name          string
			PlaybookState string `json:"playbook_state"`
			Generations   []struct {
				Current bool
				How     string
				Bytes   int64
				Jobs    []string
			}
		}
		list := func() {
			t.Helper()
			must(t, json.Unmarshal([]byte(h.drives(t, "chroot-list", "--long", "--json").stdout), &long))
			for len(long) > 0 && long[0].Name != "kept" {
				long = long[1:]
			}
			if len(long) == 0 {
				t.Fatal("the image is not listed")
			}
		}

		play("one", "/bin/true")
		if list(); long[0].PlaybookState != "unknown" {
			t.Errorf("before: %+v", long[0])
		}
		maintain("changed something in 1 of ")
		maintain("kept: up to date, generation kept/")
		if c := h.drives(t, "chroot-diff", "kept"); c.stdout != "" {
			t.Errorf("no package changed, but: %s", c.stdout)
		}
		play("one", "dpkg --force-all --purge ca-certificates")
		if list(); long[0].PlaybookState != "waiting" {
			t.Errorf("with a newer playbook: %+v", long[0])
		}
		maintain("the packages changed")
		if c := h.drives(t, "chroot-diff", "kept"); !strings.HasPrefix(c.stdout, "- ca-certificates 20") || strings.Count(c.stdout, "\n") != 1 {
			t.Errorf("diff: %s", c.stdout)
		}
		if c := h.drives(t, "chroot-maintenance", "--if-older", "1h"); !strings.Contains(c.stderr, "\nIMAGE ") || !strings.Contains(c.stderr, "\nkept   fresh   kept/") {
			t.Errorf("the table at the end: %s", c.stderr)
		}

		id := h.prepared(t, "kept")
		list()
		g := long[0].Generations
		if long[0].PlaybookState != "ran" || len(g) != 2 || !g[0].Current || g[0].How != "maintenance" || g[0].Bytes < 50e6 || len(g[0].Jobs) != 1 || g[0].Jobs[0] != id {
			t.Errorf("in the end: %+v", long[0])
		}
		wantLog(t, h.drives(t, "chroot-list", "--long").stdout, "  current  just now  maintenance, playbook ", " MiB", "  1     ran\n")
		release := shell(t, `. /etc/os-release; printf %s "$PRETTY_NAME"`) // of this host, and so of its images
		wantLog(t, h.drives(t, "chroot-show", "kept").stdout, release, "packages: ", "used by "+id, "(as it ran)", "the packages changed")
	})
}
