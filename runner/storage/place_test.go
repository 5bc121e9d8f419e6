package storage

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNoLinkLeadsToAPlace(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "mkdir -p a/b; echo inside > a/b/file; ln -s b a/link; ln -s file a/b/link; ln -s /nowhere a/dangling; ln -s loop a/loop; mkfifo a/fifo")
	for _, path := range []string{"a/b/file", "a/b", "a/fifo", "a//b/../b/file"} {
		place, err := OpenPlace(filepath.Join(dir, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		place.Close()
	}
	for path, want := range map[string]string{
		"a/link":       dir + "/a/link is a symbolic link",
		"a/link/file":  dir + "/a/link is a symbolic link",
		"a/b/link":     dir + "/a/b/link is a symbolic link",
		"a/dangling":   "is a symbolic link",
		"a/loop":       "is a symbolic link",
		"a/none":       "there is no such file or directory on this host",
		"a/b/file/sub": "not a directory",
	} {
		if _, err := OpenPlace(filepath.Join(dir, path)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	place, err := OpenPlace(filepath.Join(dir, "a/b/file"))
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	if _, err := io.ReadAll(place); err == nil {
		t.Error("a place is open for more than to be mounted")
	}
}

func TestLinksThatNoJobCanHavePutThereAreFollowed(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "mkdir -p usr/lib/modules jobs/deep; ln -s usr/lib lib; ln -s "+dir+"/lib/modules m; ln -s ../usr jobs/usr; ln -s ../../usr jobs/deep/usr; ln -s jobs/deep way; ln -s loop loop")
	for path, want := range map[string]string{
		"lib/modules": "usr/lib/modules", "m": "usr/lib/modules", "usr/./lib//modules": "usr/lib/modules", "way": "jobs/deep",
	} {
		if got, err := Resolve(dir+"/"+path, []string{dir + "/jobs"}); err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	for path, want := range map[string]string{
		"jobs/usr/lib": "/jobs/usr is a symbolic link", "way/usr": "/jobs/deep/usr is a symbolic link", "loop": "too many", "lib/none": "there is no such file",
	} {
		if got, err := Resolve(dir+"/"+path, []string{dir + "/jobs"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
}

func TestADirectoryIsClosedByOneAboveItThatIsRootsAlone(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/", "open-") // all above is open, unlike that of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	shell(t, dir, "chmod 755 .; mkdir -p a/b/c; chmod 700 a/b/c")
	for _, test := range []struct {
		how    string
		closed bool
		jobs   []string
	}{
		{"true", false, nil}, // by itself alone
		{"chmod 700 a/b", true, nil},
		{"chmod 700 a/b", true, []string{dir + "/a/b/c", dir + "/a/bb", "/elsewhere"}},
		{"chmod 700 a/b", false, []string{dir + "/a/b"}},
		{"chmod 700 a/b", false, []string{dir}},
		{"chmod 760 a/b", true, nil},
		{"chmod 710 a/b", false, nil},
		{"chmod 701 a/b", false, nil},
		{"chmod 700 a/b; chown 1 a/b", false, nil},
		{"chmod 700 a", true, []string{dir + "/a/b"}},
	} {
		shell(t, dir, "chown 0 a/b; chmod 755 a a/b; "+test.how)
		if err := CheckClosed(filepath.Join(dir, "a/b/c"), test.jobs); (err == nil) != test.closed {
			t.Errorf("%s, beside %q: %v", test.how, test.jobs, err)
		}
	}
}
