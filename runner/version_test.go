package runner

import (
	"os"
	"strings"
	"testing"
)

func TestTheReleaseIsTheNewestOfTheChangelog(t *testing.T) {
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, newest, _ := strings.Cut(string(text), "\n## ")
	if !strings.HasPrefix(newest, Version+",") && !strings.HasPrefix(newest, Version+"\n") {
		t.Errorf("the release is %s, and the CHANGELOG begins with %.20q", Version, newest)
	}
}

func TestABuildNamesItsReleaseRevisionAndGo(t *testing.T) {
	for want, build := range map[string]Build{
		"nspawn-runner 0.1.0, go1.26.0":                                     {Release: "0.1.0", Go: "go1.26.0"},
		"nspawn-runner 0.1.0, package 0.1.0-1, go1.26.0":                    {Release: "0.1.0", Package: "0.1.0-1", Go: "go1.26.0"},
		"nspawn-runner 0.1.0, revision 0123456789ab, go1.26.0":              {Release: "0.1.0", Revision: "0123456789abcdef", Go: "go1.26.0"},
		"nspawn-runner 0.1.0, revision 0123456789ab with changes, go1.26.0": {Release: "0.1.0", Revision: "0123456789abcdef", Modified: true, Go: "go1.26.0"},
	} {
		if got := build.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
