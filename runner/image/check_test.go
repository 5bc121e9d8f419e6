package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bootable makes a tree that Check takes for one that boots.
func bootable(t testing.TB, root string) {
	for path, mode := range map[string]os.FileMode{
		"usr/lib/systemd/systemd":            0o755,
		"usr/bin/dbus-daemon":                0o755,
		"usr/bin/bash":                       0o755,
		"usr/lib/systemd/system/dbus.socket": 0o644,
	} {
		write(t, filepath.Join(root, path), "")
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	symlink(t, "usr/bin", filepath.Join(root, "bin"))
	symlink(t, "/usr/lib", filepath.Join(root, "lib")) // absolute: the tree's, not the host's
}

func TestCheckSaysWhatIsMissing(t *testing.T) {
	for path, want := range map[string]string{
		"":                                   "",
		"usr/lib/systemd/systemd":            "no init",
		"usr/bin/dbus-daemon":                "no D-Bus daemon",
		"usr/lib/systemd/system/dbus.socket": "no D-Bus system socket",
		"usr/bin/bash":                       "no shell",
	} {
		root := t.TempDir()
		bootable(t, root)
		if path != "" {
			if err := os.Remove(filepath.Join(root, path)); err != nil {
				t.Fatal(err)
			}
		}
		err := Check(root)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), " and ")) {
			t.Errorf("without %q: %v", path, err)
		}
	}
}

func TestCheckFollowsLinksInsideTheTree(t *testing.T) {
	root := t.TempDir()
	bootable(t, root)
	bash := filepath.Join(root, "usr/bin/bash")
	for target, good := range map[string]bool{
		"/bin/sh":              false, // the host has it, the tree does not
		"/usr/lib/real":        true,
		"../../../../lib/real": true, // in the tree, there is nothing above the root
		"bash":                 false,
		"/dev/null":            false,
		"/usr/lib/plain":       false, // not to be executed
		"/usr":                 false,
	} {
		write(t, filepath.Join(root, "usr/lib/plain"), "")
		write(t, filepath.Join(root, "usr/lib/real"), "")
		if err := os.Chmod(filepath.Join(root, "usr/lib/real"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(bash); err != nil {
			t.Fatal(err)
		}
		symlink(t, target, bash)
		if err := Check(root); (err == nil) != good {
			t.Errorf("/usr/bin/bash -> %s: %v", target, err)
		}
	}
}

// A prepare does it each time.
func BenchmarkCheck(b *testing.B) {
	root := b.TempDir()
	bootable(b, root)
	for b.Loop() {
		if err := Check(root); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCheckOfNothingIsAnError(t *testing.T) {
	if err := Check(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error")
	}
}
