package runner

import (
	"io"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/image"
)

func TestWhereSystemdDoesNotRunAGenerationIsNotTestedAndThatIsSaidOnce(t *testing.T) {
	if runsSystemd() {
		t.Skip("systemd runs this host")
	}
	h := &Host{}
	said := hear(h)
	for range 2 {
		if err := h.tryGeneration(t.Context(), "sid", image.Generation{}, io.Discard); err != nil {
			t.Error(err)
		}
	}
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "nothing new is tested") {
		t.Errorf("%q", got)
	}
}

func TestAnImageIsAsOldAsItsLastMaintenance(t *testing.T) {
	past := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	const day = 24 * time.Hour
	for _, test := range []struct {
		what   string
		record image.Record
		limit  time.Duration
		want   bool
	}{
		{"maintained long ago", image.Record{Built: past(day), Maintained: past(9 * day)}, 7 * day, true},
		{"maintained since it was built", image.Record{Built: past(9 * day), Maintained: past(day)}, 7 * day, false},
		{"without a playbook", image.Record{Built: past(9 * day)}, 7 * day, true},
		{"without a limit", image.Record{Built: past(9 * day)}, 0, false},
		{"of the original", image.Record{}, 7 * day, false},
	} {
		if got := stale(test.record, test.limit); got != test.want {
			t.Errorf("%s: stale is %v", test.what, got)
		}
	}
	for limit, want := range map[time.Duration]string{7 * day: "7d", 36 * time.Hour: "36h0m0s"} {
		if got := days(limit); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}
