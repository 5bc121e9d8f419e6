package debian

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const status = `Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9
Description: a library
 Package: not-this

Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21.22

Package: libc6
Status: hold ok installed
Architecture: amd64
Version: 2.36-9+deb12u1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2024a

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
`

func TestPackagesAreThoseThatDpkgCallsInstalled(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, dpkgStatus), status)
	got, err := Packages(root)
	want := map[string]string{"dpkg": "1.21.22", "libc6": "2.36-9+deb12u1", "libc6:i386": "2.36-9", "tzdata": "2024a"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("packages are %v, %v", got, err)
	}
}

func TestPackagesAreNotReadThroughALinkOutOfTheTree(t *testing.T) {
	root, host := t.TempDir(), filepath.Join(t.TempDir(), "status")
	write(t, host, status)
	symlink(t, host, filepath.Join(root, dpkgStatus))
	if got, err := Packages(root); err == nil {
		t.Errorf("read the host's: %v", got)
	}
}

func TestComparePackages(t *testing.T) {
	before := map[string]string{"same": "1", "up": "1", "went": "1"}
	after := map[string]string{"same": "1", "up": "2", "came": "1"}
	want := []PackageChange{{"came", "", "1"}, {"up", "1", "2"}, {"went", "1", ""}}
	if got := ComparePackages(before, after); !slices.Equal(got, want) {
		t.Errorf("changes are %v", got)
	}
}

func TestReleaseNamesThePointRelease(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "usr/lib/os-release"), "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
	symlink(t, "../usr/lib/os-release", filepath.Join(root, "etc/os-release"))
	for version, want := range map[string]string{"12.8\n": "Debian GNU/Linux 12 (bookworm) 12.8", "forky/sid\n": "Debian GNU/Linux 12 (bookworm)"} {
		write(t, filepath.Join(root, "etc/debian_version"), version)
		if got, err := Release(root); err != nil || got != want {
			t.Errorf("release is %q, %v", got, err)
		}
	}
	if got, err := Release(t.TempDir()); err != nil || got != "" {
		t.Errorf("of an empty tree: %q, %v", got, err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: x\nStatus: deinstall ok config-files\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name := range parseStatus(text) {
			if name == "" {
				t.Errorf("a package without a name in %q", text)
			}
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
