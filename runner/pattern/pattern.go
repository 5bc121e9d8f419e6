// Package pattern matches names of images against patterns, as administrators write them in
// settings: * stands for any characters, slashes too, and ? for one.
package pattern

import (
	"regexp"
	"strings"
)

// Is says whether a text is a pattern and not a plain name.
func Is(text string) bool { return strings.ContainsAny(text, "*?") }

// Compile makes an expression of a pattern, which matches a name only as a whole. What is not
// UTF-8 in the pattern matches the replacement character only.
func Compile(text string) *regexp.Regexp {
	text = strings.ToValidUTF8(text, "\ufffd")
	expression := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(text))
	return regexp.MustCompile("^(?s:" + expression + ")$")
}

// Fits says whether a pattern, or a plain name, is for all of a name.
func Fits(text, name string) bool { return Compile(text).MatchString(name) }
