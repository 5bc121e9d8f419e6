package printable

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWhatAMachineSaysCannotWriteToATerminal(t *testing.T) {
	if got := Line("\x1b[31mred\x07\r\n\u009b1mx\xff" + strings.Repeat("y", 1000)); strings.ContainsAny(got, "\x1b\x07\r\n\u009b") || len(got) > 320 {
		t.Errorf("%q", got)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("\x1b]0;title\x07 \u009b31m \xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := Line(text)
		if !utf8.ValidString(got) || len(got) > 310 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
