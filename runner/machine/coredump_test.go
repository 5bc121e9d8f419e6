package machine

import "testing"

func TestCoreDumpsThatWouldLieOnTheHostAreNotMade(t *testing.T) {
	for _, c := range []struct {
		pattern, suidDumpable string
		want                  bool
	}{
		{"core", "0", true},
		{"core.%p", "2", true}, // the kernel makes none of setuid programs then
		{"/var/crash/core.%e", "0", true},
		{"/var/crash/core.%e", "2", false},
		{"|/lib/systemd/systemd-coredump %P", "2", false},
		{"|/usr/share/apport/apport -p%p", "0", false},
		{"@/run/coredump.socket", "0", false},
		{"", "0", false},
	} {
		if got := coresStay(c.pattern, c.suidDumpable); got != c.want {
			t.Errorf("core_pattern %q, suid_dumpable %s: %v", c.pattern, c.suidDumpable, got)
		}
	}
}
