package oci

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

func TestAPatternAllowsImagesOfItsRegistryOnly(t *testing.T) {
	docker := name.DefaultRegistry
	short := strings.TrimPrefix(docker, "index.")
	for _, test := range []struct {
		pattern, name string
		fits          bool
	}{
		{short + "/library/*", "postgres", true},
		{docker + "/library/*", short + "/library/postgres", true},
		{short + "/*", docker + "/team/x", true},
		{"postgres", short + "/postgres", true},
		{"postgres:*", "postgres:16", true},
		{"postgres:*", "postgres", true},
		{"postgres:*", "library/postgres:16", true},
		{"postgres", "postgres:16", true},
		{"postgres:16", "postgres:17", false},
		{"postgres:*", "postgres@sha256:" + strings.Repeat("a", 64), true},
		{"postgres:*", "postgres:16@sha256:" + strings.Repeat("a", 64), true},
		{"postgres:16", "postgres:16@sha256:" + strings.Repeat("a", 64), false}, // the tag says nothing then
		{"postgres*", "postgres@sha256:" + strings.Repeat("a", 64), true},
		{"postgres:*", "postgres:5000/mine", false},
		{"postgres:*", "postgres:5000/mine:1", false},
		{"postgres*", "postgres.example.org/mine", false},
		{"team/*", "team/api:1", true},
		{"team/*", "team.example.org/api:1", false},
		{"team*/api", "team.example.org/api", false},
		{"registry.example.org/*", "registry.example.org/team/api:1", true},
		{"registry.example.org/*", "registry.example.org.evil.example/team/api:1", false},
		{"registry.example.org/*", "registry.example.org:5000/team/api:1", false},
		{"registry.example.org:5000/*", "registry.example.org:5000/api", true},
		{"*.example.org/api:*", "registry.example.org/api:1", true},
		{"*.example.org/api:*", "evil.example/x.example.org/api:1", false},
		{"*/ci/*", "registry.example.org/ci/x", true},
		{"*", "registry.example.org/ci/x", true},
		{"*", "postgres", true},
		{"*:latest", "registry.example.org/x:latest", false},
		{"redis", "postgres", false},
		{"Registry.example.org/*", "registry.EXAMPLE.org/team/api:1", true},
		{short + "/library/*", strings.ToUpper(short) + "/library/postgres", true},
	} {
		err := Rules{Images: []string{"unused", test.pattern}, ConfigPath: "/etc/x.yaml"}.Allows(test.name)
		if (err == nil) != test.fits {
			t.Errorf("%s for %s: %v", test.pattern, test.name, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "oci_images in /etc/x.yaml") || !strings.Contains(err.Error(), test.pattern)) {
			t.Errorf("%s for %s: %v", test.pattern, test.name, err)
		}
	}
	if ref, err := (Rules{}).parse("Registry.example.org:5000/team/api:V1"); err != nil || ref.Name() != "registry.example.org:5000/team/api:V1" {
		t.Errorf("%v, %v", ref, err)
	}
	inOurs := Rules{Images: []string{"team/api"}, Registry: "registry.example.org"}
	if err := inOurs.Allows("registry.example.org/team/api:3"); err != nil {
		t.Error(err)
	}
	inDefault := Rules{Images: []string{"postgres"}, Registry: short}
	if err := inDefault.Allows("postgres:16"); err != nil {
		t.Error(err)
	}
}

func TestNoImageIsAllowedByDefault(t *testing.T) {
	if err := (Rules{}).Allows("postgres"); err == nil || !strings.Contains(err.Error(), "none is allowed") {
		t.Error(err)
	}
}

func TestANameThatIsNoneIsRefusedWithoutControlCharacters(t *testing.T) {
	for _, name := range []string{"", "a b", "../etc", "UPPER", "x:\x1b[31m", "x@sha256:00", "x/../y", "a//b", "http://x/y", "x?y", strings.Repeat("a", 5000)} {
		err := Rules{Images: []string{"*"}}.Allows(name)
		if err == nil || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 500 {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzAllows(f *testing.F) {
	for _, seed := range []string{"postgres:16", "postgres:5000/mine", "postgres@sha256:" + strings.Repeat("a", 64), "registry.example.org/x:1", "registry.example.org:5000/a/b", "[::1]:5000/x", "localhost/x", "../x", "a\x00b"} {
		f.Add(seed)
	}
	official := Rules{Images: []string{"postgres*", "team/*", "?edis"}}
	ours := Rules{Images: []string{"registry.example.org/*", "registry.example.org:5000/*:1"}}
	f.Fuzz(func(t *testing.T, written string) {
		for _, rules := range []Rules{official, ours} {
			err := rules.Allows(written)
			if err != nil {
				if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("%q: %q", written, err)
				}
				continue
			}
			ref, err := rules.parse(written)
			if err != nil {
				t.Fatalf("%q is allowed, and no name: %v", written, err)
			}
			registry := ref.Context().RegistryStr()
			if is := registry == name.DefaultRegistry; is != (rules.Images[0] == official.Images[0]) || !is && !strings.HasPrefix(registry, "registry.example.org") {
				t.Errorf("%q is allowed of %q", written, registry)
			}
		}
	})
}
