package image

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image/debian"
)

// needMemory skips a test of bootstraps in memory.
func needMemory(t *testing.T) {
	t.Helper()
	if available, err := host.AvailableMemory(); err != nil || available < 4<<30 {
		t.Skipf("a bootstrap in memory wants %d MB of it, there are %d: %v", 4<<30>>20, available>>20, err)
	}
}

func TestPackagesAreCountedWhileTheTreeIsMadeInMemory(t *testing.T) {
	needMemory(t)
	s, _ := fakeStore(t)
	seen := filepath.Join(t.TempDir(), "seen")
	t.Setenv("FAKE_BOOTSTRAP", `
		mkdir -p "$root/var/log"
		echo "2026-11-24 03:00:00 install perl:amd64 <none> 5.36" > "$root/var/log/dpkg.log"
		timeout 60 sh -c 'until [ -e `+seen+` ]; do sleep 0.01; done'`)
	s.Progress = func(event Event) {
		if event.Packages != nil && event.Packages.Begun == 1 {
			write(t, seen, "")
		}
	}
	create(t, s, "small") // fails unless the package is seen
}

func TestTheFirstTreeIsMadeInMemoryUnlessItMayBeLarge(t *testing.T) {
	needMemory(t)
	s, calls := fakeStore(t)
	t.Setenv("FAKE_BOOTSTRAP", `
		stat --file-system --format=%T "$root" > "$root/made-on"
		echo two > "$root/one"
		ln "$root/one" "$root/two"
		chown 12:34 "$root/one"
		python3 -c 'import os, sys; os.setxattr(sys.argv[1], "security.test", b"kept")' "$root/one"
		mknod "$root/null" c 1 3
		mkdir "$root/other"
		mount -t tmpfs other "$root/other"
		touch "$root/other/hidden"`)
	s.BaseMaxAge = 0

	tree := create(t, s, "small").Path
	if got := read(t, filepath.Join(tree, "made-on")); got != "tmpfs\n" {
		t.Errorf("a small tree was made on %s", got)
	}
	var one, two, null unix.Stat_t
	for name, stat := range map[string]*unix.Stat_t{"one": &one, "two": &two, "null": &null} {
		if err := unix.Lstat(filepath.Join(tree, name), stat); err != nil {
			t.Fatal(err)
		}
	}
	if one.Ino != two.Ino || one.Uid != 12 || one.Gid != 34 || null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("the copy has %+v, %+v, %+v", one, two, null)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(tree, "one"), "security.test", value); err != nil || string(value[:n]) != "kept" {
		t.Errorf("extended attribute: %q, %v", value, err)
	}
	if !exists(filepath.Join(tree, "other")) || exists(filepath.Join(tree, "other/hidden")) {
		t.Error("what was mounted in the tree is in the copy")
	}

	large, err := s.Create(t.Context(), "large", CreateOptions{Bootstrap: debian.Bootstrap{Include: []string{"texlive-full"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(large.Path, "made-on")); strings.HasPrefix(got, "tmpfs") {
		t.Error("a tree that may be large was made in memory")
	}
	// In memory there is no disk to wait for, and in the tree eatmydata finds no library.
	if got := strings.Count(read(t, calls), "\neatmydata mmdebstrap "); got != 1 {
		t.Errorf("%d of two bootstraps ran under eatmydata", got)
	}
}
