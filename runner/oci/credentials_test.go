package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// dockerConfig has user:pass for a registry, and more for a part of it.
const dockerConfig = `{"auths": {
	"registry.example.org": {"auth": "dXNlcjpwYXNz"},
	"https://registry.example.org/team": {"username": "team", "password": "a:b"},
	"registry.example.org:5000": {"auth": "dXNlcjo"},
	"tokens.example.org": {"identitytoken": "secret"},
	"helper.example.org": {}
}, "credsStore": "evil", "credHelpers": {"registry.example.org": "/bin/evil"}}`

func TestTheLongestPathOfCredentialsWins(t *testing.T) {
	keys, err := ParseKeychain([]byte(dockerConfig))
	if err != nil || len(keys) != 4 {
		t.Fatal(keys, err)
	}
	keys = append(keys, Credential{Server: "registry.example.org", Username: "later"}, Credential{Server: "registry.example.org/team/deep", Username: "deep"},
		Credential{Server: authn.DefaultAuthKey, Username: "default"})
	for image, want := range map[string]string{
		"registry.example.org/api":                "user",
		"registry.example.org/teams/api":          "user",
		"registry.example.org/team/api":           "team",
		"registry.example.org/team":               "team",
		"registry.example.org/team/deep/api":      "deep",
		"registry.example.org:5000/api":           "user",
		"registry.example.org.evil.example/x":     "",
		"evil.example/registry.example.org/x":     "",
		"helper.example.org/x":                    "",
		"postgres:16":                             "default",
		"registry.example.org/api:443":            "user",
		"registry.example.org:443/team/x":         "", // as the image is written
		"sub.registry.example.org/team/deep/api":  "",
		"registry.example.org:5001/team/deep/api": "",
	} {
		ref, err := name.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		authenticator, err := keys.Resolve(ref.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := authenticator.Authorization()
		if err != nil || got.Username != want {
			t.Errorf("%s: %q, want %q, %v", image, got.Username, want, err)
		}
	}
	if c, _ := keys.find("tokens.example.org/x"); c.IdentityToken != "secret" {
		t.Error(c.Server)
	}
	if text := fmt.Sprintf("%v %+v %#v", keys, keys, keys); strings.Contains(text, "pass") || strings.Contains(text, "secret") {
		t.Error(text)
	}
}

func TestCredentialsThatCannotBeReadAreNotQuoted(t *testing.T) {
	for _, text := range []string{`{"auths": {"x": {"auth": "c2VjcmV0"}}}`, `secret`, `{"auths": {"x": {"auth": "!secret!"}}}`, strings.Repeat("secret", 1<<20)} {
		_, err := ParseKeychain([]byte(text))
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Error(err)
		}
	}
}

func TestTheUsersFileIsReadWhereDockerHasIt(t *testing.T) {
	dir := t.TempDir()
	home := func(name string) string { return map[string]string{"HOME": dir}[name] }
	if keys, err := UserKeychain(home); err != nil || keys != nil {
		t.Errorf("without a file: %v, %v", keys, err)
	}
	path := filepath.Join(dir, ".docker", "config.json")
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(dockerConfig), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, environment := range []func(string) string{home, func(name string) string { return map[string]string{"DOCKER_CONFIG": filepath.Dir(path)}[name] }} {
		if keys, err := UserKeychain(environment); err != nil || len(keys) != 4 {
			t.Errorf("%v, %v", keys, err)
		}
	}
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := UserKeychain(home); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func FuzzParseKeychain(f *testing.F) {
	f.Add([]byte(dockerConfig))
	f.Add([]byte(`{"auths": {"": {"auth": "Og=="}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParseKeychain(text)
		if err != nil && keys != nil {
			t.Errorf("%d keys with an error", len(keys))
		}
		for _, key := range keys {
			if place := key.place(); place != "" {
				if _, found := keys.find(place); !found {
					t.Errorf("%q finds nothing", place)
				}
			}
		}
	})
}
