package network

import (
	"fmt"
	"testing"
)

func TestAMachinesResolversAreThoseItCanReach(t *testing.T) {
	for host, want := range map[string]string{
		"":                                 "",
		"search x\nnameserver 192.0.2.1\n": "search x\nnameserver 192.0.2.1\n",
		"nameserver 127.0.0.53\noptions edns0\nnameserver 127.0.0.1\n":   "nameserver 192.0.0.3\noptions edns0\n",
		"nameserver fe80::1%eth0\nnameserver 192.0.2.1":                  "nameserver fe80::1%host0\nnameserver 192.0.2.1",
		"nameserver 0.0.0.0\n":                                           "nameserver 192.0.0.3\n",
		"nameserver ::1\nnameserver 192.0.2.1\n":                         "nameserver 192.0.2.1\n",
		"nameserver ::1\nnameserver 127.0.0.53\nnameserver 127.0.0.53\n": "nameserver 192.0.0.3\n",
		"nameserver\tfe80::1%enp0s31f6 # the router":                     "nameserver fe80::1%host0\n",
	} {
		if got := forMachine(host); got != want {
			t.Errorf("of %q it has %q", host, got)
		}
	}
	for host, want := range map[string]string{
		"nameserver 192.0.2.1\nnameserver ::1\nnameserver 127.0.0.53\n": "127.0.0.53 [192.0.2.1 127.0.0.53]",
		"nameserver ::1\nnameserver 192.0.2.1\n":                        "invalid IP [192.0.2.1]",
		"nameserver 169.254.169.253\nnameserver fe80::1%eth0\n":         "invalid IP [169.254.169.253 fe80::1]",
	} {
		address, err := forwarded(host)
		if got := fmt.Sprint(address, resolvers(host)); err != nil || got != want {
			t.Errorf("of %q: %s, %v", host, got, err)
		}
	}
	if _, err := forwarded("nameserver ::1"); err == nil {
		t.Error("a resolver on ::1 only, no error")
	}
}
