package suite

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are the documents, by their path from the top of the source.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, paths, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(path, "../../")] = string(text)
		}
	}
	return all
}

// anchors are the names that GitLab gives to the headings of a page.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

func TestEachLinkOfADocumentLeadsToAPageAndAHeading(t *testing.T) {
	all := pages(t)
	for name, text := range all {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			path, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			page, known := all[target]
			if !known {
				t.Errorf("%s: there is no page %s", name, link[1])
			} else if anchor != "" && !anchors(page)[anchor] {
				t.Errorf("%s: there is no heading %s", name, link[1])
			}
		}
	}
}

func TestEachPathOfTheSourceThatADocumentNamesExists(t *testing.T) {
	for page, text := range pages(t) {
		for _, name := range regexp.MustCompile("`((?:cmd|docs|magefiles|packaging|playbooks|runner|test)/[^` ]*)`").FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("../..", name[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// TestEachMessageOfTroubleshootingIsInTheCode looks at the tables whose first column is
// called "message". Three dots stand for what varies.
func TestEachMessageOfTroubleshootingIsInTheCode(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"../../runner", "../../cmd"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			code.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for _, table := range strings.Split(pages(t)["docs/troubleshooting.md"], "\n| message | ")[1:] {
		table, _, _ = strings.Cut(table, "\n\n")
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
			found++
			for _, part := range strings.Split(row[1], "...") {
				if !strings.Contains(code.String(), part) {
					t.Errorf("no message has %q", part)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("%d messages were found in the tables", found)
	}
}
