package pattern

import "testing"

func TestAPatternIsForAWholeName(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"debian:12", "debian:12", true}, {"debian:12", "debian:123", false}, {"debian.12", "debian:12", false},
		{"debian:*", "debian:", true}, {"*/ci/*:sha-*", "a/b/ci/c:sha-1", true}, {"*/ci/*", "ci/x", false},
		{"debian:1?", "debian:12", true}, {"debian:1?", "debian:1", false}, {"a*", "a\nb", true}, {"[a]", "a", false},
		{"a\xff*", "ab", false},
	} {
		if got := Fits(test.pattern, test.name); got != test.want {
			t.Errorf("%q, %q: %v", test.pattern, test.name, got)
		}
	}
	if Is("debian:12") || !Is("debian:1?") || !Is("*") {
		t.Error("what a pattern is")
	}
}
