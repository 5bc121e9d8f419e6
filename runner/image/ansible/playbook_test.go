package ansible

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlaybookSettings(t *testing.T) {
	for _, c := range []struct {
		name, text string
		settings   string // NAME=VALUE:LINE, in any order
		warning    string
	}{
		{name: "settings of the first play, by their lines", text: `
- hosts: all
  vars:
    nspawn_runner_chroot_suite: trixie
    other: 1
    nspawn_runner_maint_recreate: yes
`, settings: "nspawn_runner_chroot_suite=trixie:4 nspawn_runner_maint_recreate=yes:6"},
		{name: "only the first play counts", text: `
- hosts: all
- hosts: all
  vars: {nspawn_runner_chroot_suite: sid}
`, warning: "several plays"},
		{name: "one play of two for this host", text: `
- hosts: localhost
- hosts: all
`, warning: "a play with hosts: localhost changes this host"},
		{name: "no vars", text: "- hosts: all\n"},
		{name: "vars that are no mapping", text: "- hosts: all\n  vars: [1, 2]\n"},
		{name: "a play that is no mapping", text: "- hello\n", warning: "nothing in its list is a play"},
		{name: "what is imported without settings comes before the first play", text: `
- import_playbook: common.yaml
- ansible.builtin.import_playbook: more.yaml
  vars: {other: 1}
- hosts: all
  vars: {nspawn_runner_chroot_suite: sid}
`, settings: "nspawn_runner_chroot_suite=sid:6"},
		{name: "an import has settings", text: `
- import_playbook: common.yaml
  vars: {nspawn_runner_chroot_suite: sid}
`, settings: "nspawn_runner_chroot_suite=sid:3"},
		{name: "empty", text: "", warning: "is empty"},
		{name: "only a comment", text: "# to be written\n", warning: "is empty"},
		{name: "null", text: "---\n~\n", warning: "is empty"},
		{name: "an empty list", text: "[]\n", warning: "has no plays"},
		{name: "no list", text: "hosts: all\nvars: {nspawn_runner_chroot_suite: sid}\n", warning: "not a list of plays"},
		{name: "the last of equal keys", text: `
- vars:
    nspawn_runner_chroot_suite: trixie
    nspawn_runner_chroot_suite: sid
`, settings: "nspawn_runner_chroot_suite=sid:4"},
		{name: "anchors and merges", text: `
- vars:
    base: &base {nspawn_runner_chroot_suite: sid, nspawn_runner_maint_recreate: &no false}
    more: &more {nspawn_runner_chroot_suite: trixie, nspawn_runner_backend: tmpfs}
    <<: [*base, *more]
    nspawn_runner_privileged: *no
`, settings: "nspawn_runner_chroot_suite=sid:3 nspawn_runner_maint_recreate=false:3 nspawn_runner_backend=tmpfs:4 nspawn_runner_privileged=false:3"},
		{name: "a merge into itself", text: "- vars: &v {nspawn_runner_chroot_suite: sid, <<: *v}\n",
			settings: "nspawn_runner_chroot_suite=sid:1"},
		{name: "a list merged into itself", text: "- vars:\n    nspawn_runner_chroot_suite: sid\n    <<: &l [*l, *l]\n",
			settings: "nspawn_runner_chroot_suite=sid:2"},
		{name: "tags of ansible", text: "- vars:\n    secret: !vault |\n      $ANSIBLE_VAULT\n    nspawn_runner_chroot_suite: !unsafe sid\n",
			settings: "nspawn_runner_chroot_suite=sid:4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			book, err := parsePlaybook("x.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Fields(c.settings)
			if len(book.Settings) != len(want) {
				t.Errorf("got %d settings: %v", len(book.Settings), book.Settings)
			}
			for _, setting := range want {
				name, rest, _ := strings.Cut(setting, "=")
				value, line, _ := strings.Cut(rest, ":")
				if node := book.Settings[name]; node.Value != value || int('0'+node.Line) != int(line[0]) {
					t.Errorf("%s is %q in line %d, not %s", name, node.Value, node.Line, rest)
				}
			}
			if c.warning == "" && book.Warnings != nil || !strings.Contains(strings.Join(book.Warnings, "\n"), c.warning) {
				t.Errorf("warnings are %q, want %q", book.Warnings, c.warning)
			}
		})
	}
}

func TestMalformedPlaybookIsAnErrorWithTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"- hosts: all\n  tasks:\n    - name: x\n      command: y\n       when: z\n": "x.yaml:5: ",
		"- hosts: [all\n- hosts: other\n":                                           "x.yaml:1: ",
		"- hosts: all\n\tvars: {}\n":                                                "x.yaml:2: ",
		"- hosts: all\n  vars:\n    a: 'no end\n    b: 1\n":                         "x.yaml:3: ",
		"- hosts: *nobody\n":                                                        "x.yaml:1: ",
		"- hosts: all\n---\n- hosts: all\n":                                         "x.yaml:2: a second YAML document",
		"- hosts: all\n# fine\n- \xff\n":                                            "x.yaml:3: ",
	} {
		if _, err := parsePlaybook("x.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %s", text, err, want)
		}
	}
}

func TestUnreadablePlaybookIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sid.yaml")
	if err := os.Symlink("nowhere", path); err != nil {
		t.Fatal(err)
	}
	_, err := ReadPlaybook(path)
	if want := "read playbook " + path + ": no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func FuzzParsePlaybook(f *testing.F) {
	f.Add([]byte("- hosts: all\n  vars:\n    nspawn_runner_chroot_suite: sid\n"))
	f.Add([]byte("- vars: &v {nspawn_runner_chroot_suite: sid, <<: [*v, *v]}\n"))
	f.Add([]byte("a: [\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			t.Skip("too long to be interesting")
		}
		book, err := parsePlaybook("x.yaml", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "playbook x.yaml:") {
				t.Errorf("the error does not say where: %v", err)
			}
			return
		}
		for name := range book.Settings {
			if !strings.HasPrefix(name, settingPrefix) {
				t.Errorf("setting %q", name)
			}
		}
	})
}
