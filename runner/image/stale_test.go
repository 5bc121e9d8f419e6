package image

import (
	"testing"
	"time"
)

func TestAnImageIsAsOldAsItsLastMaintenance(t *testing.T) {
	past := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	const day = 24 * time.Hour
	for _, test := range []struct {
		what   string
		record Record
		limit  time.Duration
		want   bool
	}{
		{"maintained long ago", Record{Built: past(day), Maintained: past(9 * day)}, 7 * day, true},
		{"maintained since it was built", Record{Built: past(9 * day), Maintained: past(day)}, 7 * day, false},
		{"without a playbook", Record{Built: past(9 * day)}, 7 * day, true},
		{"without a limit", Record{Built: past(9 * day)}, 0, false},
		{"of the original", Record{}, 7 * day, false},
	} {
		if got := test.record.Stale(test.limit); got != test.want {
			t.Errorf("%s: stale is %v", test.what, got)
		}
	}
}
