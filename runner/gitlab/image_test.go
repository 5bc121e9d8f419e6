package gitlab

import (
	"strings"
	"testing"
)

func TestReferencesMapToNamesAsTheOriginals(t *testing.T) {
	for reference, want := range map[string]string{
		"bookworm":                                   "bookworm",
		"debian:bookworm":                            "bookworm",
		"registry.example.org/ci/base:bookworm":      "bookworm",
		"registry.example.org:5000/ci/base":          "base",
		"registry.example.org:5000/ci/base:bookworm": "bookworm",
		"a:b:c":         "c",
		"bookworm-qt_5": "bookworm-qt_5",
	} {
		if got, err := ImageName(reference); err != nil || got != want {
			t.Errorf("%s: %q, %v", reference, got, err)
		}
	}
}

func TestReferencesThatNameNothingAreRefusedWithTheReason(t *testing.T) {
	for reference, why := range map[string]string{
		"":                      "names no image",
		"debian@sha256:abc":     "digest",
		"debian:":               "empty",
		"debian/":               "empty",
		"../etc":                "", // is "etc": one element cannot lead anywhere
		"..":                    "begin with '.'",
		"a:.hidden":             "begin with '.'",
		"-x":                    "begin with '-'",
		"a:b:c:d":               "colons",
		"a\nb":                  "control",
		"a b":                   "' '",
		strings.Repeat("x", 65): "longer than 64",
		"a\\b":                  "letters, digits",
	} {
		name, err := ImageName(reference)
		if why == "" {
			if err != nil || name != "etc" {
				t.Errorf("%q: %q, %v", reference, name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %q, %v; want %s", reference, name, err, why)
		}
	}
}

func FuzzImageName(f *testing.F) {
	for _, seed := range []string{"debian:bookworm", "../../x", "a:b:c", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		name, err := ImageName(reference)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b\r") {
				t.Errorf("%q: control bytes in %q", reference, err)
			}
			return
		}
		if name == "" || len(name) > maxImageName || name[0] == '.' || name[0] == '-' || strings.ContainsAny(name, "/\x00\n @:") {
			t.Errorf("%q is %q", reference, name)
		}
	})
}
