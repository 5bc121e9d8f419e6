package image

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFilesBesidePlaybooksAreNoImages(t *testing.T) {
	s := &Store{StateDir: t.TempDir(), PlaybookDirs: []string{t.TempDir()}}
	dir := s.PlaybookDirs[0]
	const sealed = "$ANSIBLE_VAULT;1.1;AES256\n3761\n"
	for name, text := range map[string]string{
		"tasks.yaml":        "- name: a task\n  apt: {name: less}\n- include_tasks: more.yaml\n",
		"requirements.yml":  "- src: https://example.org/role.git\n  name: role\n",
		"requirements2.yml": "roles: [{name: role}]\ncollections: []\n",
		"inventory.yaml":    "all:\n  hosts: {one: }\n",
		"site.yaml":         "- import_playbook: trixie.yaml\n- import_playbook: sid.yaml\n",
		"secrets.yaml":      sealed,
		"built.yaml":        "- apt: {name: less}\n", // there is a chroot
		"broken.yaml":       "- hosts: [\n",          // it may have been a playbook
		"empty.yaml":        "",
		"imports.yaml":      "- import_playbook: common.yaml\n  vars: {nspawn_runner_chroot_suite: sid}\n",
		"plain.yaml":        "- hosts: all\n",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	write(t, filepath.Join(s.StateDir, "built/etc/hostname"), "")

	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, image := range images {
		names = append(names, image.Name)
	}
	if want := []string{"broken", "built", "empty", "imports", "plain"}; !slices.Equal(names, want) {
		t.Errorf("images are %q, not %q", names, want)
	}
	beside, err := s.Beside()
	for i := range beside {
		beside[i] = filepath.Base(beside[i])
	}
	if want := []string{"inventory.yaml", "requirements.yml", "requirements2.yml", "secrets.yaml", "site.yaml", "tasks.yaml"}; err != nil || !slices.Equal(beside, want) {
		t.Errorf("beside them are %q, not %q; %v", beside, want, err)
	}
	for name, want := range map[string]string{
		"tasks":         dir + "/tasks.yaml is not a playbook: nothing in its list is a play",
		"requirements2": dir + "/requirements2.yml is not a playbook: it is not a list of plays",
	} {
		if _, err := s.Get(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s asked for by name: %v", name, err)
		}
	}
	for _, name := range []string{"site", "secrets"} { // ansible can run them
		if _, err := s.Get(name); err != nil {
			t.Errorf("%s asked for by name: %v", name, err)
		}
	}
	if _, _, err := s.Maintain(t.Context(), "built", ofSid); err == nil || !strings.Contains(err.Error(), "built.yaml is not a playbook") {
		t.Errorf("an image whose playbook is no longer one: %v", err)
	}
}
