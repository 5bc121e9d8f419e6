package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestListNamesChrootsAndPlaybooksTogether(t *testing.T) {
	etc, state := t.TempDir(), t.TempDir()
	s := &Store{StateDir: state, PlaybookDirs: []string{etc, state}}
	write(t, filepath.Join(etc, "both.yaml"), "")
	write(t, filepath.Join(etc, "only-playbook.yml"), "")
	write(t, filepath.Join(etc, "notes.txt"), "")
	write(t, filepath.Join(etc, ".hidden.yaml"), "")
	write(t, filepath.Join(etc, "folder.yaml/file"), "")
	write(t, filepath.Join(state, "both/etc/hostname"), "")
	write(t, filepath.Join(state, "only-chroot/etc/hostname"), "")
	write(t, filepath.Join(state, "lost+found/x"), "")
	write(t, filepath.Join(state, ".machines/x"), "")
	write(t, filepath.Join(state, ".generations/linked/1/x"), "")
	symlink(t, ".generations/linked/1", filepath.Join(state, "linked"))
	symlink(t, ".generations/gone/1", filepath.Join(state, "dangling"))

	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []Image{
		{Name: "both", Path: state + "/both", Playbook: etc + "/both.yaml", Exists: true},
		{Name: "linked", Path: state + "/linked", Exists: true},
		{Name: "only-chroot", Path: state + "/only-chroot", Exists: true},
		{Name: "only-playbook", Path: state + "/only-playbook", Playbook: etc + "/only-playbook.yml"},
	}
	if !slices.Equal(images, want) {
		t.Errorf("got  %+v\nwant %+v", images, want)
	}
}

func TestListOfNothingIsEmpty(t *testing.T) {
	s := &Store{StateDir: t.TempDir() + "/none", PlaybookDirs: []string{t.TempDir() + "/none"}}
	if images, err := s.List(); err != nil || images != nil {
		t.Errorf("got %v, %v", images, err)
	}
}

func TestFirstPlaybookFoundWins(t *testing.T) {
	etc, state := t.TempDir(), t.TempDir()
	s := &Store{StateDir: state, PlaybookDirs: []string{etc, state}}
	for _, path := range []string{state + "/sid.yml", state + "/sid.yaml", etc + "/sid.yml", etc + "/sid.yaml"} {
		write(t, path, "")
		if image, err := s.Get("sid"); err != nil || image.Playbook != path {
			t.Errorf("got %+v, %v; want the playbook %s", image, err, path)
		}
	}
}

func TestGetRefusesNamesThatLeadElsewhere(t *testing.T) {
	s := &Store{StateDir: t.TempDir()}
	for _, name := range []string{"", ".", "..", ".generations", "-x", "a/b", "/etc", "a\x00b"} {
		var unknown *UnknownError
		if _, err := s.Get(name); err == nil || errors.As(err, &unknown) {
			t.Errorf("Get(%q): %v", name, err)
		}
		if _, err := s.Create(t.Context(), name, CreateOptions{}); err == nil {
			t.Errorf("Create(%q) was done", name)
		}
	}
}

func TestUnknownImageNamesTheNearestFirst(t *testing.T) {
	s := &Store{StateDir: t.TempDir()}
	for _, name := range []string{"sid", "trixie", "bookworm", "bullseye"} {
		write(t, filepath.Join(s.StateDir, name, "file"), "")
	}
	for wanted, nearest := range map[string]string{"bokworm": "bookworm", "trixy": "trixie", "sd": "sid", "bulseye-x": "bullseye"} {
		_, err := s.Get(wanted)
		var unknown *UnknownError
		if !errors.As(err, &unknown) || len(unknown.Known) != 4 || unknown.Known[0] != nearest {
			t.Errorf("Get(%s): %v", wanted, err)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}
