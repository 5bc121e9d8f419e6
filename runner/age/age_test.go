package age

import (
	"testing"
	"time"
)

func TestTimesAreWordedAsPeopleWriteThem(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{7 * day: "7d", 36 * time.Hour: "36h0m0s"} {
		if got := Days(d); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	for since, want := range map[time.Duration]string{
		time.Second: "just now", 5 * time.Minute: "5m ago", 47 * time.Hour: "47h ago", 3 * day: "3d ago",
	} {
		if got := Ago(time.Now().Add(-since)); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	if got := Ago(time.Time{}); got != "unknown" {
		t.Error(got)
	}
	var a Age
	if err := a.Set("7d"); err != nil || time.Duration(a) != 7*day || a.String() != "7d" {
		t.Errorf("%v, %v", a, err)
	}
	if err := a.Set("soon"); err == nil {
		t.Error("no error")
	}
}
