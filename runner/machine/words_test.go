package machine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestOfAJournalCountsWhatWentWrong(t *testing.T) {
	got := telling([]string{
		"Nov 26 01:35:10 systemd[1]: Reached target graphical.target - Graphical Interface.",
		"Nov 26 01:35:10 postgres[33]: FATAL:  no room",
		"Nov 26 01:35:10 systemd[1]: postgres.service: Main process exited, code=exited, status=1/FAILURE",
		"Nov 26 01:35:10 systemd[1]: postgres.service: Failed with result 'exit-code'.",
		"Nov 26 01:35:10 systemd[1]: nspawn-runner-script-x.service: Failed with result 'exit-code'.",
		"Nov 26 01:35:10 dbus-daemon[20]: [system] Failed to set fd limit to 65536: Operation not permitted",
		"Nov 26 01:35:10 systemd-tmpfiles[24]: /usr/lib/tmpfiles.d/legacy.conf:14: Duplicate line for path \"/run/lock\", ignoring.",
		"Nov 26 01:35:10 systemd-logind[21]: New seat seat0.",
		"short",
	})
	want := []string{"postgres[33]: FATAL:  no room", "systemd[1]: postgres.service: Main process exited, code=exited, status=1/FAILURE",
		"systemd[1]: postgres.service: Failed with result 'exit-code'."}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestATailKeepsTheLastLinesInALittleMemory(t *testing.T) {
	tail := Tail{Max: 1000}
	for i := range 100000 {
		fmt.Fprintf(&tail, "line %d\x1b[31m\n\n", i)
	}
	_, _ = tail.Write([]byte(strings.Repeat("x\n", 1000) + "\nend"))
	if got := tail.Last(); len(got) != 12 || got[11] != "end" || got[0] != "x" || len(tail.text) > 4000 {
		t.Errorf("%d bytes, %q", len(tail.text), got)
	}
	fmt.Fprint(&tail, "\nred\x1b[31m")
	if got := tail.Last(); got[11] != "red [31m" {
		t.Errorf("%q", got)
	}
}
