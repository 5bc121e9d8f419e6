package ansible

import "testing"

func TestAFailureOfATaskIsFewLinesAndEachOnce(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  string
	}{
		{[]string{"E: no such package", "E: no such package"}, `task "apt": E: no such package`},
		{[]string{"non-zero return code", "a", "b", "a", "c", "d"}, `task "apt": non-zero return code; ...; b; c; d`},
	} {
		if got := (taskFailure{Task: "apt", Lines: test.lines}).String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
