package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// What a bootstrap is told stands on its command line, and in the image's
// sources.list: nothing in it may be taken for an option, a path or a pattern.
var (
	suiteName   = regexp.MustCompile(`^[a-z0-9][a-z0-9.+_-]*$`)
	component   = regexp.MustCompile(`^[a-z0-9][a-z0-9/_-]*$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`) // Debian Policy, 5.6.1
	mirrorPath  = regexp.MustCompile(`^[A-Za-z0-9/._~%+-]*$`)
)

// CheckSuite says whether a word can be the name of a suite.
func CheckSuite(name string) error {
	if !suiteName.MatchString(name) {
		return fmt.Errorf("%q is not the name of a suite", name)
	}
	return nil
}

func suite(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("want the name of a suite")
	}
	if err := CheckSuite(n.Value); err != nil {
		return err
	}
	*out = n.Value
	return nil
}

// mirror takes an address as apt's sources.list has it, without options.
func mirror(n *yaml.Node, out *string) error {
	address, err := url.Parse(n.Value)
	good := n.Kind == yaml.ScalarNode && err == nil && address.String() == n.Value && mirrorPath.MatchString(address.EscapedPath()) &&
		address.RawQuery == "" && address.Fragment == ""
	switch {
	case good && (address.Scheme == "http" || address.Scheme == "https") && address.Host != "":
	case good && address.Scheme == "file" && address.Host == "" && strings.HasPrefix(address.Path, "/"):
	default:
		return fmt.Errorf("want an address like http://HOST/debian or file:///PATH, not %q", n.Value)
	}
	*out = n.Value
	return nil
}

// securityMirror takes an address, none, or auto, which is "".
func securityMirror(n *yaml.Node, out *string) error {
	switch n.Value {
	case "auto":
		*out = ""
		return nil
	case "none":
		*out = n.Value
		return nil
	}
	if err := mirror(n, out); err != nil {
		return fmt.Errorf("want auto, none or an address like http://HOST/debian-security, not %q", n.Value)
	}
	return nil
}

// words takes a list, or one string of words between blanks or commas. All must
// match the pattern.
func words(n *yaml.Node, pattern *regexp.Regexp, out *[]string) error {
	var all []string
	switch n.Kind {
	case yaml.ScalarNode:
		all = strings.FieldsFunc(n.Value, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' })
	case yaml.SequenceNode:
		for _, item := range n.Content {
			for item.Kind == yaml.AliasNode {
				item = item.Alias
			}
			if item.Kind != yaml.ScalarNode {
				return fmt.Errorf("want a list of words")
			}
			all = append(all, item.Value)
		}
	default:
		return fmt.Errorf("want a list of words")
	}
	if len(all) == 0 {
		return fmt.Errorf("want at least one word")
	}
	for _, word := range all {
		if !pattern.MatchString(word) {
			return fmt.Errorf("%q is not a valid name: it must match %s", word, pattern)
		}
	}
	*out = all
	return nil
}
