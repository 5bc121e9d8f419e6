// Package pattern matches names of images against patterns in settings: * stands for any characters, also slashes, and
// ? for one character.
package pattern

import (
	"regexp"
	"strings"
)

// Is says whether a text is a pattern, and not a plain name.
func Is(text string) bool { return strings.ContainsAny(text, "*?") }

// Compile returns a regular expression for a pattern. It matches whole names only. Bytes of the pattern that are not
// UTF-8 match nothing but the Unicode replacement character.
func Compile(text string) *regexp.Regexp {
	text = strings.ToValidUTF8(text, "\ufffd")
	expression := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(text))
	return regexp.MustCompile("^(?s:" + expression + ")$")
}

// Fits says whether a pattern, or a plain name, matches a whole name.
func Fits(text, name string) bool { return Compile(text).MatchString(name) }
