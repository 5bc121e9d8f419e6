package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newClone is a clone with the three files that a release changes, as they are.
func newClone(t *testing.T) clone {
	t.Helper()
	c := clone(t.TempDir())
	for _, name := range []string{"runner/version.go", "CHANGELOG.md", "debian/changelog"} {
		path := filepath.Join(string(c), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text := read(t, name)
		if name == "debian/changelog" {
			text = entry.ReplaceAllString(text, "nspawn-runner (0.1.0) "+unreleased+"; urgency=medium\n")
		}
		if name == "CHANGELOG.md" && !strings.Contains(text, ", not released yet\n") {
			text = strings.Replace(text, "\n## ", "\n## 0.1.0, not released yet\n\n## ", 1)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"config", "user.name", "A"}, {"config", "user.email", "a@example.org"}, {"add", "."}, {"commit", "--quiet", "--message=all"}} {
		if _, err := c.git(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// shown is a file of a commit.
func (c clone) shown(t *testing.T, commit, name string) string {
	t.Helper()
	text, err := c.git(t.Context(), "show", commit+":"+name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAReleaseIsOneVersionInAllFilesAndATagAndOpensTheNext(t *testing.T) {
	c := newClone(t)
	now := time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)
	if err := Release(t.Context(), string(c), "0.2.0", now); err != nil {
		t.Fatal(err)
	}
	for commit, parts := range map[string][]string{
		"v0.2.0": {"const Version = \"0.2.0\"\n", "\n## 0.2.0, 2026-12-24\n", "nspawn-runner (0.2.0) unstable; urgency=medium\n", ">  Thu, 24 Dec 2026 18:00:00 +0000"},
		"HEAD":   {"const Version = \"0.2.1\"\n", "\n## 0.2.1, not released yet\n\n## 0.2.0, 2026-12-24\n", "nspawn-runner (0.2.1) UNRELEASED; urgency=medium\n\n", "+0000\n\nnspawn-runner (0.2.0) unstable;"},
	} {
		all := c.shown(t, commit, "runner/version.go") + "\n" + c.shown(t, commit, "CHANGELOG.md") + "\n" + c.shown(t, commit, "debian/changelog")
		for _, part := range parts {
			if !strings.Contains(all, part) {
				t.Errorf("%s: no %q", commit, part)
			}
		}
	}
	if changes, err := c.git(t.Context(), "status", "--porcelain"); err != nil || changes != "" {
		t.Errorf("%v: %s", err, changes)
	}
	if err := Release(t.Context(), string(c), "0.2.0", now); err == nil || !strings.Contains(err.Error(), "there is a tag v0.2.0") {
		t.Error(err)
	}
}

func TestAReleaseThatCannotBeMadeChangesNothing(t *testing.T) {
	c := newClone(t)
	before := c.shown(t, "HEAD", "runner/version.go")
	for version, change := range map[string]string{"1.2": "", "1.2.3": "debian/changelog"} {
		if change != "" { // it has no unreleased entry any more
			if err := os.WriteFile(filepath.Join(string(c), change), []byte("nspawn-runner (1.0.0) unstable; urgency=low\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := Release(t.Context(), string(c), version, time.Now()); err == nil || !strings.Contains(err.Error(), "commit your changes first") {
				t.Error(err)
			}
			if err := c.commit(t.Context(), "change"); err != nil {
				t.Fatal(err)
			}
		}
		if err := Release(t.Context(), string(c), version, time.Now()); err == nil {
			t.Error(version)
		}
		after, err := c.read("runner/version.go")
		if tags, _ := c.git(t.Context(), "tag"); err != nil || strings.TrimSpace(after) != before || tags != "" {
			t.Errorf("%s: %v: %s, tags %q", version, err, after, tags)
		}
	}
}
