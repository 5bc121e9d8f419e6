package network

import (
	"slices"
	"strings"
	"testing"
)

func TestANetworkIsFoundByItsName(t *testing.T) {
	for _, want := range []Network{Private, Host, None} {
		if got, err := Named(want.Name()); err != nil || got != want {
			t.Errorf("%s: %v, %v", want.Name(), got, err)
		}
	}
	if _, err := Named("bridge"); err == nil || !strings.Contains(err.Error(), "private, host, none") {
		t.Errorf("a network that there is not: %v", err)
	}
}

func TestOnlyAPrivateNetworkChangesTheResolver(t *testing.T) {
	const host = "nameserver 127.0.0.53\nnameserver 192.0.2.1\n"
	for attached, want := range map[Network]string{Private: "nameserver 192.0.0.3\nnameserver 192.0.2.1\n", Host: host, None: host} {
		if got := attached.Resolver(host); got != want {
			t.Errorf("%s: %q", attached.Name(), got)
		}
	}
}

func TestAJoinedNetworkIsTheOtherMachinesAndIsNotMadeAgain(t *testing.T) {
	const host = "nameserver 127.0.0.53\n"
	for _, n := range []Network{Private, None} {
		joined := Of(n)
		if joined.IsApart() || joined.Name() != n.Name() || joined.Resolver(host) != n.Resolver(host) || joined.Check() != nil || joined.Attach(t.Context(), Machine{}) != nil {
			t.Errorf("%s", n.Name())
		}
	}
}

func TestNameserversAreWordsAsTheyAreWritten(t *testing.T) {
	got := Nameservers("# the host's\nnameserver 192.0.0.3\nsearch example.org\nnameserver fe80::1%host0 # a router\nnameserver x\n")
	if want := []string{"192.0.0.3", "fe80::1%host0"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
