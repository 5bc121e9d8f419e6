package oci

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"nspawn-runner/runner/pattern"
	"nspawn-runner/runner/printable"
)

// Rules are the administrator's settings for images of registries.
type Rules struct {
	// Images are the names of images that may be pulled, each a name or a pattern, in which
	// * stands for any characters and ? for one. See [Rules.Allows].
	Images []string
	// ConfigPath is the file with these settings, for messages.
	ConfigPath string
	// Registry is the registry of names without one, HOST[:PORT]. "" is the library's default. This
	// and all other registries are in lower case.
	Registry string
	// Mirror is asked instead of the library's default registry, HOST[:PORT][/PATH]. The path comes
	// before the paths of images. "" is no mirror.
	Mirror string
	// Insecure are registries without TLS, HOST[:PORT].
	Insecure []string
}

// maxName bounds a name that a job writes, in bytes.
const maxName = 1024

// parse parses the name of an image. It ignores the case of the registry.
func (r Rules) parse(written string) (name.Reference, error) {
	if len(written) > maxName {
		return nil, fmt.Errorf("the name of an image is longer than %d bytes", maxName)
	}
	options := []name.Option{name.WithDefaultTag("latest")}
	if r.Registry != "" {
		options = append(options, name.WithDefaultRegistry(r.Registry))
	}
	ref, err := name.ParseReference(written, options...)
	if err == nil {
		if registry := ref.Context().RegistryStr(); registry != strings.ToLower(registry) {
			written = strings.ToLower(registry) + strings.TrimPrefix(written, registry)
			ref, err = name.ParseReference(written, options...)
		}
	}
	if err == nil && slices.Contains(r.Insecure, ref.Context().RegistryStr()) {
		ref, err = name.ParseReference(written, append(options, name.Insecure)...)
	}
	if err != nil || !registryName.MatchString(ref.Context().RegistryStr()) || !repositoryName.MatchString(ref.Context().RepositoryStr()) {
		return nil, fmt.Errorf("%s is not the name of an image", printable.Line(written))
	}
	return ref, nil
}

var (
	// registryName matches a host name or an address, and maybe a port.
	registryName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)
	// repositoryName matches what the distribution specification takes for the name of a repository.
	repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// Allows returns an error if an image may not be pulled. The error names the setting.
//
// The pattern "*" is for all images. If the part of a pattern before the first slash can only be a registry (it
// has a dot or a colon, or begins with *), the pattern is for images of such registries. All other patterns are
// for images of the default registry. So a * in the name or the tag never matches a registry of a job's choice:
// postgres:* does not match postgres:5000/mine.
func (r Rules) Allows(written string) error {
	ref, err := r.parse(written)
	if err != nil {
		return err
	}
	for _, allowed := range r.Images {
		if r.fits(allowed, ref) {
			return nil
		}
	}
	allowed := "none is allowed"
	if len(r.Images) > 0 {
		allowed = "allowed are: " + strings.Join(r.Images, ", ")
	}
	return fmt.Errorf("image %s: this host does not pull it from its registry (oci_images in %s); %s",
		printable.Line(written), cmp.Or(r.ConfigPath, "the configuration"), allowed)
}

// fits says whether a pattern is for an image.
func (r Rules) fits(allowed string, ref name.Reference) bool {
	if allowed == "*" {
		return true
	}
	repository := ref.Context()
	full := repository.RepositoryStr()
	registry, rest, of := ofRegistry(allowed)
	if of {
		if named, err := name.NewRegistry(registry); err == nil && !pattern.Is(registry) {
			registry = named.RegistryStr() // the default one has two names
		}
		return pattern.Fits(strings.ToLower(registry), repository.RegistryStr()) && fitsPath(rest, full, ref)
	}
	if repository.RegistryStr() != r.defaultRegistry() {
		return false
	}
	short, official := strings.CutPrefix(full, "library/")
	return fitsPath(allowed, full, ref) || official && fitsPath(allowed, short, ref)
}

// fitsPath is fits without the registry. A pattern without a tag, or with :*, is for all tags and digests.
func fitsPath(allowed, repository string, ref name.Reference) bool {
	if _, ok := ref.(name.Digest); ok {
		return pattern.Fits(allowed, repository+"@"+ref.Identifier()) || pattern.Fits(strings.TrimSuffix(allowed, ":*"), repository)
	}
	return pattern.Fits(allowed, repository+":"+ref.Identifier()) || pattern.Fits(allowed, repository)
}

// ofRegistry splits a pattern that has a registry. is is false if it has none.
func ofRegistry(allowed string) (registry, rest string, is bool) {
	registry, rest, is = strings.Cut(allowed, "/")
	if !is || !strings.ContainsAny(registry, ".:") && !strings.HasPrefix(registry, "*") && registry != "localhost" {
		return "", "", false
	}
	return registry, rest, true
}

// defaultRegistry returns the registry of names without one.
func (r Rules) defaultRegistry() string {
	if named, err := name.NewRegistry(r.Registry); err == nil {
		return named.RegistryStr() // the library's default one has two names
	}
	return r.Registry // this cannot happen: the configuration has been checked
}

// withPort returns a host with its port. If it has none, port is added, or 80 if port is "".
func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return strings.ToLower(host)
	}
	if port == "" {
		port = "80"
	}
	return strings.ToLower(net.JoinHostPort(strings.Trim(host, "[]"), port))
}

// isInsecure says whether HOST:PORT is a registry without TLS.
func (r Rules) isInsecure(to string) bool {
	return slices.ContainsFunc(r.Insecure, func(host string) bool { return withPort(host, "80") == to })
}

// isNamed says whether the administrator has named HOST:PORT without a pattern. It may then have any address.
func (r Rules) isNamed(to string) bool {
	if r.isInsecure(to) {
		return true
	}
	mirror, _, _ := strings.Cut(r.Mirror, "/")
	named := []string{r.Registry, mirror}
	for _, allowed := range r.Images {
		if registry, _, of := ofRegistry(allowed); of && !pattern.Is(registry) {
			named = append(named, registry)
		}
	}
	return slices.ContainsFunc(named, func(host string) bool { return host != "" && withPort(host, "443") == to })
}

// mirrored returns the reference for a request: that of the mirror for images of the library's default registry,
// else ref.
func (r Rules) mirrored(ref name.Reference) name.Reference {
	if r.Mirror == "" || ref.Context().RegistryStr() != name.DefaultRegistry {
		return ref
	}
	host, path, _ := strings.Cut(r.Mirror, "/")
	var options []name.Option
	if r.isInsecure(withPort(host, "80")) {
		options = append(options, name.Insecure)
	}
	mirror, err := name.NewRegistry(host, options...)
	if err != nil {
		return ref // this cannot happen: the configuration has been checked
	}
	repository := mirror.Repo(path, ref.Context().RepositoryStr())
	if _, is := ref.(name.Digest); is {
		return repository.Digest(ref.Identifier())
	}
	return repository.Tag(ref.Identifier())
}

// listed returns what the rules name without a pattern: names with a tag or a digest, and repositories.
func (r Rules) listed() (names, repositories []string) {
	for _, written := range r.Images {
		ref, err := r.parse(written)
		if err != nil {
			continue // a pattern
		}
		if last := written[strings.LastIndexByte(written, '/')+1:]; strings.ContainsAny(last, ":@") {
			names = append(names, ref.Name())
		} else {
			repositories = append(repositories, ref.Context().Name())
		}
	}
	return names, repositories
}
