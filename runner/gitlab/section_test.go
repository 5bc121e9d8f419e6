package gitlab

import (
	"testing"
	"time"
)

func TestASectionIsMarkedAsGitLabsPageReadsIt(t *testing.T) {
	at := time.Unix(1700000000, 5)
	if got, want := SectionStart("a_1", "Header", at), "\x1b[0Ksection_start:1700000000:a_1[collapsed=true]\r\x1b[0KHeader"; got != want {
		t.Errorf("%q", got)
	}
	if got, want := SectionEnd("a_1", at), "\x1b[0Ksection_end:1700000000:a_1\r\x1b[0K"; got != want {
		t.Errorf("%q", got)
	}
}
