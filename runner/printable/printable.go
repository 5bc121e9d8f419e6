// Package printable makes the words of strangers fit to be shown. A job names processes,
// units, images and files as it likes, and programs quote that in their errors.
package printable

import "strings"

// Line makes text from a job, or from its machine, one line that is fit
// for a terminal and a log.
func Line(s string) string {
	s = strings.TrimSpace(strings.Map(printable, strings.ToValidUTF8(s, "?")))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}

// printable replaces control characters, with which a job could write to an
// administrator's terminal.
func printable(r rune) rune {
	if r < ' ' || r >= 0x7f && r < 0xa0 {
		return ' '
	}
	return r
}
