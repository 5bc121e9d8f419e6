package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestTheCommentedFileSetsNothingAndItsLinesSetTheDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nspawn-runner.yaml")
	setting := regexp.MustCompile(`(?m)^#([a-z_]+:.*)$`)
	for _, text := range []string{File(), setting.ReplaceAllStringFunc(File(), func(line string) string {
		if strings.HasSuffix(line, ":") { // it has no default
			return line
		}
		return line[1:]
	})} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := Load(path)
		if err != nil || !reflect.DeepEqual(got, Default()) {
			t.Errorf("%v: %+v: %s", err, got, text)
		}
	}
	found := map[string]bool{}
	for _, line := range setting.FindAllStringSubmatch(File(), -1) {
		name, _, _ := strings.Cut(line[1], ":")
		found[name] = true
	}
	for _, key := range Keys {
		if key.Host && !found[key.Name] {
			t.Errorf("%s is not in the file", key.Name)
		}
		if strings.Contains(key.Plain(), "](") {
			t.Errorf("%s has a link: %s", key.Name, key.Plain())
		}
	}
}
