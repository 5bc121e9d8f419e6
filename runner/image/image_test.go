package image

import (
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
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

// wantNothing checks that an image has no chroot and left nothing but its log.
func wantNothing(t *testing.T, s *Store, name string) {
	t.Helper()
	for _, path := range []string{filepath.Join(s.StateDir, name), s.generations(name)} {
		if exists(path) {
			t.Errorf("%s is there", path)
		}
	}
}
