package network

import (
	"strings"
	"testing"
)

// The host's resolv.conf, and what a machine gets of it.
func FuzzResolver(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions edns0\nnameserver ::1\nnameserver 192.0.2.1")
	f.Fuzz(func(t *testing.T, text string) {
		own := forMachine(text)
		asked := 0
		for line := range strings.Lines(own) {
			address, ok := nameserver(line)
			if ok && address.IsLoopback() {
				t.Errorf("a machine would ask %v, by %q of %q", address, line, text)
			}
			if ok && address.String() == resolverAddress {
				asked++
			}
		}
		if forward, err := forwarded(text); err == nil && forward.IsValid() && asked == 0 {
			t.Errorf("nobody asks %v, of %q", forward, text)
		}
	})
}
