package suite

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestEachTestThatSECURITYNamesExists(t *testing.T) {
	text, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]bool{}
	var files []string
	for _, dir := range []string{"../integration", "../../runner/oci", "../../runner/oci/unpack", "../../runner/seccomp", "../../runner/starter"} {
		found, err := filepath.Glob(dir + "/*_test.go")
		if err != nil || len(found) == 0 {
			t.Fatal(dir, found, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			defined[string(found[1])] = true
		}
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(string(text), -1) {
		named[name] = true
		if !defined[name] {
			t.Errorf("there is no %s", name)
		}
	}
	for name := range defined {
		if regexp.MustCompile(`^TestAttacks`).MatchString(name) && !named[name] {
			t.Errorf("SECURITY.md does not name %s", name)
		}
	}
}
