package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheSourceOfAnUnreleasedPackageIsOlderThanTheReleaseAndNamesItsCommit(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	version, err := Source(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := git(t.Context(), "log", "-1", "--format=%h", "--abbrev=8")
	if err != nil {
		t.Fatal(err)
	}
	changelog, err := os.ReadFile(filepath.Join(dir, "debian/changelog"))
	if err != nil {
		t.Fatal(err)
	}
	if entry.FindStringSubmatch(string(changelog))[2] != unreleased {
		t.Skip("this is the commit of a release")
	}
	if !strings.HasSuffix(version, "."+commit) || !strings.Contains(version, "~") || !strings.HasPrefix(string(changelog), "nspawn-runner ("+version+")") {
		t.Errorf("version %s of commit %s: %.100s", version, commit, changelog)
	}
	for _, name := range []string{"go.mod", "vendor/modules.txt", "debian/rules", "LICENSE"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if wanted := map[bool]os.FileMode{true: 0o755, false: 0o644}[name == "debian/rules"]; info.Mode() != wanted {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
	}
	for _, name := range []string{".git", "build", "vendor/honnef.co"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is in the source package", name)
		}
	}
}
