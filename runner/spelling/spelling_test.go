package spelling

import (
	"slices"
	"testing"
)

func TestDistances(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"bookworm", "bookworm", 0}, {"bookwrm", "bookworm", 1}, {"sid", "dis", 2}, {"kitten", "sitting", 3}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%s to %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestTheNearestNameComesFirstAndOnlyALikelyOneIsMeant(t *testing.T) {
	names := []string{"bookworm", "sid", "trixie"}
	Sort(names, "trixi")
	if want := []string{"trixie", "sid", "bookworm"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if got := Nearest(names, "bookwrom"); got != "bookworm" {
		t.Errorf("%q", got)
	}
	if got := Nearest(names, "completely-different"); got != "" {
		t.Errorf("%q", got)
	}
}
