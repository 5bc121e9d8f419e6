package oci

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Credential is a credential for one registry, or for part of it.
type Credential struct {
	// Server is the registry, with its port if that is not 443, and maybe the beginning of a path,
	// such as "registry.example.org/team".
	Server string
	// Username and Password are empty if there is a token instead.
	Username, Password string
	// IdentityToken is exchanged for a token of the registry. RegistryToken is such a token.
	IdentityToken, RegistryToken string
}

// Keychain has the credentials of a job. The one with the longest Server that is the beginning of an image's name
// counts; of two equal ones, the first.
type Keychain []Credential

// maxCredentials bounds the text that ParseKeychain takes, in bytes.
const maxCredentials = 1 << 20

// ParseKeychain parses docker's config.json. Its errors quote nothing of the text. It does not execute credential
// helpers that the text names, because the text may come from a job.
func ParseKeychain(text []byte) (Keychain, error) {
	if len(text) > maxCredentials {
		return nil, fmt.Errorf("more than %d bytes", maxCredentials)
	}
	var file struct {
		Auths map[string]struct {
			Auth, Username, Password     string
			IdentityToken, RegistryToken string
		}
	}
	if json.Unmarshal(text, &file) != nil {
		return nil, fmt.Errorf(`want JSON of the form {"auths": {"registry.example.org": {"auth": "..."}}}`)
	}
	var all Keychain
	for _, server := range slices.Sorted(maps.Keys(file.Auths)) {
		one := file.Auths[server]
		c := Credential{
			Server: server, Username: one.Username, Password: one.Password,
			IdentityToken: one.IdentityToken, RegistryToken: one.RegistryToken,
		}
		if one.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(one.Auth)
			if err != nil {
				plain, err = base64.RawStdEncoding.DecodeString(one.Auth)
			}
			username, password, is := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !is {
				return nil, fmt.Errorf("one auth is not the base64 of USER:PASSWORD")
			}
			c.Username, c.Password = username, password
		}
		if c == (Credential{Server: server}) {
			continue // a helper has it
		}
		all = append(all, c)
	}
	return all, nil
}

// find returns the credential for a repository, whose name includes the registry. found is false if there is none.
func (k Keychain) find(repository string) (best Credential, found bool) {
	length := -1
	for _, c := range k {
		server := c.place()
		if server == "" || len(server) <= length || repository != server && !strings.HasPrefix(repository, server+"/") {
			continue
		}
		best, found, length = c, true, len(server)
	}
	return best, found
}

// place returns the server in the form of the beginning of a repository's name. Server may also be a URL with the
// version of the protocol.
func (c Credential) place() string {
	server := c.Server
	for _, scheme := range []string{"https://", "http://"} {
		server = strings.TrimPrefix(server, scheme)
	}
	host, path, _ := strings.Cut(server, "/")
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	if registry, err := name.NewRegistry(host); err == nil {
		host = registry.RegistryStr() // the default one has two names
	}
	path = strings.Trim(path, "/")
	if path == "" || path == "v1" || path == "v2" {
		return host
	}
	return host + "/" + path
}

// Resolve implements authn.Keychain.
func (k Keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	c, found := k.find(target.String())
	if !found {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: c.Username, Password: c.Password,
		IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}), nil
}

// String and GoString keep secrets out of messages.
func (c Credential) String() string { return "credential for " + c.Server }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// UserKeychain returns the credentials in docker's config.json of the user who runs this program, without those
// that credential helpers have.
func UserKeychain(environment func(string) string) (Keychain, error) {
	dir := environment("DOCKER_CONFIG")
	if dir == "" {
		home := environment("HOME")
		if home == "" {
			home = "/root"
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := ParseKeychain(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}
