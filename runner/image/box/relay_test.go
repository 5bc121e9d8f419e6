package box

import (
	"slices"
	"testing"
)

func TestProxiesOnTheLoopbackAreThoseThatAMachineDoesNotReach(t *testing.T) {
	got := LoopbackProxies(map[string]string{
		"http_proxy": "http://user:word@localhost:3128/", "HTTPS_PROXY": "127.0.0.1:3128", "ftp_proxy": "http://[::1]:21",
		"all_proxy": "http://proxy.example:3128", "no_proxy": "localhost", "NAME": "127.0.0.1:80",
	})
	if want := []string{"127.0.0.1:3128", "[::1]:21"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
