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

// Rules are what the administrator says of images and registries.
type Rules struct {
	// Images are the names of images that may be pulled, each a name or a pattern, in which
	// * stands for any characters and ? for one. See [Rules.Allows].
	Images []string
	// ConfigPath is the file that says so, for messages.
	ConfigPath string
	// Registry is where names without a registry lie, HOST[:PORT]; "" for the library's default.
	Registry string
	// Mirror is asked in place of the library's default registry, HOST[:PORT][/PATH]; "" for
	// none. The path comes before those of images.
	Mirror string
	// Insecure are registries without TLS, HOST[:PORT].
	Insecure []string
}

// maxName bounds a name that a job writes, in bytes.
const maxName = 1024

// parse reads the name of an image. In the names of registries, upper and lower case are the same.
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

// Allows says why an image may not be pulled: the error names the setting.
//
// A pattern with a slash behind what can only be a registry, since it has a dot or a colon or
// begins with *, is for images of such registries; "*" is for all images, and all other patterns are for those
// of the default registry. So * in the name or the tag never makes a registry of a job's choice
// of it: postgres:* does not fit postgres:5000/mine.
func (r Rules) Allows(written string) error {
	ref, err := r.parse(written)
	if err != nil {
		return err
	}
	for _, allowed := range r.Images {
		if r.fits(allowed, written, ref) {
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

// fits says whether a pattern is for the image that a job writes so.
func (r Rules) fits(allowed, written string, ref name.Reference) bool {
	if allowed == "*" {
		return true
	}
	repository := ref.Context()
	full := repository.RepositoryStr()
	registry, rest, of := ofRegistry(allowed)
	if of {
		if named, err := name.NewRegistry(registry); err == nil && !pattern.Is(registry) {
			registry = named.RegistryStr() // docker's has two names
		}
		return pattern.Fits(strings.ToLower(registry), repository.RegistryStr()) && fitsPath(rest, full, ref)
	}
	if repository.RegistryStr() != r.defaultRegistry() {
		return false
	}
	short, official := strings.CutPrefix(full, "library/")
	return fitsPath(allowed, full, ref) || official && fitsPath(allowed, short, ref)
}

// fitsPath compares without registry: a pattern without a tag, or with :*, is for all tags and
// digests.
func fitsPath(allowed, repository string, ref name.Reference) bool {
	if _, ok := ref.(name.Digest); ok {
		return pattern.Fits(allowed, repository+"@"+ref.Identifier()) || pattern.Fits(strings.TrimSuffix(allowed, ":*"), repository)
	}
	return pattern.Fits(allowed, repository+":"+ref.Identifier()) || pattern.Fits(allowed, repository)
}

// ofRegistry splits a pattern that is for a registry that it names.
func ofRegistry(allowed string) (registry, rest string, is bool) {
	registry, rest, is = strings.Cut(allowed, "/")
	if !is || !strings.ContainsAny(registry, ".:") && !strings.HasPrefix(registry, "*") && registry != "localhost" {
		return "", "", false
	}
	return registry, rest, true
}

// defaultRegistry is where names without a registry lie.
func (r Rules) defaultRegistry() string { return cmp.Or(r.Registry, name.DefaultRegistry) }

// withPort is a host with its port, or with the one given; 80 if that is none.
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

// isNamed says whether the administrator names HOST:PORT literally, and so means it wherever it
// is.
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

// mirrored is the reference that is asked for an image: that of the mirror, for images of the
// library's default registry.
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
		return ref // the configuration is read strictly
	}
	repository := mirror.Repo(path, ref.Context().RepositoryStr())
	if _, is := ref.(name.Digest); is {
		return repository.Digest(ref.Identifier())
	}
	return repository.Tag(ref.Identifier())
}
