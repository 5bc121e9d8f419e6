package journal

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFieldsAreBoundedAndPrintable(t *testing.T) {
	f := Fields{Job: "7", Project: 12, Image: "sid", Stage: Console, Service: "post\ngres\x1b[31m MESSAGE=x ä\"%n" + strings.Repeat("y", 1000)}
	lines := f.Extra()
	if len(lines) != 5 {
		t.Errorf("%q", lines)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(string(line), "=")
		if !strings.HasPrefix(name, "NSPAWN_RUNNER_") || strings.ContainsAny(value, "\n\x1b= \"%") || len(value) > mostValue {
			t.Errorf("%q", line)
		}
	}
	if !slices.ContainsFunc(lines, func(l []byte) bool { return string(l) == "NSPAWN_RUNNER_PROJECT=12" }) {
		t.Errorf("%q", lines)
	}
	if got := (Fields{}).Extra(); got != nil {
		t.Errorf("what is not known: %q", got)
	}
}

func TestALineTakesNoLongerThanItsLimit(t *testing.T) {
	began := time.Now()
	Info(Fields{}, "a test of nspawn-runner")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
