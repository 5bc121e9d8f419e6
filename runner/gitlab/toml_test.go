package gitlab

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestTheTOMLBlock(t *testing.T) {
	for name, r := range map[string]Registration{
		"empty":  {Driver: "/usr/local/bin/nspawn-runner"},
		"filled": {Driver: "/opt/n r", Args: []string{"--config", "/etc/x.yaml"}, Name: `a "name"`, URL: "https://gitlab.example.org/", Token: "glrt-x", DefaultImage: "sid"},
	} {
		path := filepath.Join("testdata", name+".toml")
		got := TOML(r)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant (go test -update writes it anew)\n%s", name, got, want)
		}
	}
}

func TestStringsInTOMLAreEscaped(t *testing.T) {
	if got := quoteTOML("a\"b\\c\nd\x7f"); got != `"a\"b\\c\u000Ad\u007F"` {
		t.Error(got)
	}
	if strings.Contains(TOML(Registration{Driver: "/x", Token: "a\"\n[[runners]]"}), "\n[[runners]]\"") {
		t.Error("a token broke out of its string")
	}
}
