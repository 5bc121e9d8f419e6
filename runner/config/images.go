package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/pattern"
)

// IsPattern says whether it stands for more than one name.
func (p Pattern) IsPattern() bool { return p.pattern != nil }

// Fits says whether it is for what a job writes, all of it.
func (p Pattern) Fits(written string) bool {
	if p.pattern == nil {
		return p.Written == written
	}
	return p.pattern.MatchString(written)
}

// image takes the name of an image on this host.
func image(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode || gitlab.CheckImageName(n.Value) != nil {
		return fmt.Errorf("want the name of an image on this host, as chroot-list shows it, not %q", n.Value)
	}
	*out = n.Value
	return nil
}

// meanings takes a mapping from names and patterns to images. It stays in the order of
// the file.
func meanings(n *yaml.Node, out *[]Meaning) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("want lines of the form \"NAME or PATTERN: IMAGE\"")
	}
	var all []Meaning
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Value == "" || key.Tag == "!!merge" {
			return &lineError{key.Line, fmt.Errorf("want a name or a pattern before the colon, in quotes if it has a colon or begins with *")}
		}
		if seen[key.Value] {
			return &lineError{key.Line, fmt.Errorf("%q is there twice", key.Value)}
		}
		seen[key.Value] = true
		m := Meaning{Pattern: patternOf(key.Value)}
		if err := image(value, &m.Image); err != nil {
			return &lineError{value.Line, fmt.Errorf("%q: %w", key.Value, err)}
		}
		all = append(all, m)
	}
	*out = all
	return nil
}

// alias is another name of an image: with a slash or colon all of what jobs write.
var alias = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./:@+~-]*$`)

// aliases takes a list or words.
func aliases(n *yaml.Node, out *[]string) error {
	if err := words(n, anything, out); err != nil {
		return err
	}
	for _, word := range *out {
		switch {
		case pattern.Is(word):
			return fmt.Errorf("%q is a pattern: write it to images: in the configuration file, where it is known which one comes first", word)
		case !alias.MatchString(word):
			return fmt.Errorf("%q is not a name that a job can write", word)
		}
	}
	return nil
}

// patternOf reads a name or a pattern.
func patternOf(written string) Pattern {
	p := Pattern{Written: written}
	if pattern.Is(written) {
		p.pattern = pattern.Compile(written)
	}
	return p
}

// patterns takes names and patterns: a list or words.
func patterns(n *yaml.Node, out *[]Pattern) error {
	var written []string
	if err := words(n, anything, &written); err != nil {
		return err
	}
	*out = nil
	for _, word := range written {
		*out = append(*out, patternOf(word))
	}
	return nil
}

// ports takes numbers of TCP ports.
func ports(n *yaml.Node, out *[]uint16) error {
	var written []string
	if err := words(n, anything, &written); err != nil {
		return err
	}
	*out = nil
	for _, word := range written {
		port, err := strconv.ParseUint(word, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("want numbers of ports from 1 to 65535, not %q", word)
		}
		*out = append(*out, uint16(port))
	}
	return nil
}

// registryHost is a registry of images: a host and maybe a port.
var registryHost = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)

// registry takes one. Package oci compares registries in lower case.
func registry(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode || !registryHost.MatchString(n.Value) {
		return fmt.Errorf("want a registry as HOST or HOST:PORT, not %q", n.Value)
	}
	*out = strings.ToLower(n.Value)
	return nil
}

// registries takes several.
func registries(n *yaml.Node, out *[]string) error {
	if err := words(n, registryHost, out); err != nil {
		return err
	}
	for i, host := range *out {
		(*out)[i] = strings.ToLower(host)
	}
	return nil
}

// repositoryPath is what may stand behind the host of a mirror, as names of images begin.
var repositoryPath = regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)

// registryMirror takes a registry, and maybe a path in it.
func registryMirror(n *yaml.Node, out *string) error {
	host, path, deeper := strings.Cut(n.Value, "/")
	if n.Kind != yaml.ScalarNode || !registryHost.MatchString(host) || deeper && !repositoryPath.MatchString(path) {
		return fmt.Errorf("want a registry as HOST, HOST:PORT or HOST/PATH, not %q", n.Value)
	}
	*out = strings.ToLower(n.Value) // paths have no upper case
	return nil
}

// registryImages takes names and patterns of images in registries: a list or words.
func registryImages(n *yaml.Node, out *[]string) error {
	if err := words(n, anything, out); err != nil {
		return err
	}
	for _, word := range *out {
		if strings.Contains(word, "://") || strings.HasPrefix(word, "/") {
			return fmt.Errorf("%q is not the name of an image: write it as jobs do, as in registry.example.org/team/*", word)
		}
	}
	return nil
}

var anything = regexp.MustCompile(``)
