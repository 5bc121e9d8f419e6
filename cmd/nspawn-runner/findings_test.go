package main

import (
	"strings"
	"testing"

	"nspawn-runner/runner/doctor"
)

func TestFindingsStayInTheirColumnsAtANarrowTerminal(t *testing.T) {
	all := []doctor.Finding{
		{Check: "kernel", State: doctor.Good, Found: "Linux 6.12"},
		{Check: "disk space", State: doctor.Bad, Found: "only 400 MiB are free in /var/lib/nspawn-runner", ToDo: "remove what is not needed",
			Fix: &doctor.Fix{What: "nothing"}},
	}
	var narrow, plain strings.Builder
	if err := printFindings(&narrow, all, looks{width: 46}); err != nil {
		t.Fatal(err)
	}
	want := `ok       kernel      Linux 6.12
bad      disk space  only 400 MiB are free in
                     /var/lib/nspawn-runner
                     -> remove what is not
                        needed
                     -> or let 'doctor --fix'
                        do it: nothing
`
	if narrow.String() != want {
		t.Errorf("%s", narrow.String())
	}
	if err := printFindings(&plain, all, looks{}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(plain.String(), "\n"); got != 4 || strings.Contains(plain.String(), "\x1b") {
		t.Errorf("elsewhere than at a terminal: %q", plain.String())
	}
}

func TestStatesHaveColoursAtATerminal(t *testing.T) {
	var out strings.Builder
	if err := printFindings(&out, []doctor.Finding{{Check: "kernel", State: doctor.Bad, Found: "x"}}, looks{width: 80, colours: true}); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[31mbad    \x1b[0m  kernel  x\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
