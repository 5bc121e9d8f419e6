package network

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestSegmentsWithoutFlagsAreDroppedAndNothingElse(t *testing.T) {
	program, err := loadFlagless()
	if err != nil {
		t.Skip("this kernel, or container, loads no BPF: ", err)
	}
	defer program.Close()
	const ack = 0x10
	segment := func(to string, protocol, flags byte, options ...byte) []byte {
		rest := []byte{0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0}
		return slices.Concat(packet(netip.MustParseAddr(to), protocol, 80, options...), rest)
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  uint32
	}{
		{"IPv4, without flags", segment("192.0.0.2", unix.IPPROTO_TCP, 0), xdpDrop},
		{"IPv6, without flags", segment("2001:db8::1", unix.IPPROTO_TCP, 0), xdpDrop},
		{"IPv4, an acknowledgement", segment("192.0.0.2", unix.IPPROTO_TCP, ack), xdpPass},
		{"IPv6, an acknowledgement", segment("2001:db8::1", unix.IPPROTO_TCP, ack), xdpPass},
		{"IPv4, a datagram", segment("192.0.0.2", unix.IPPROTO_UDP, 0), xdpPass},
		{"IPv6, a datagram", segment("2001:db8::1", unix.IPPROTO_UDP, 0), xdpPass},
		{"IPv4, with options", segment("192.0.0.2", unix.IPPROTO_TCP, 0, 1, 1, 1, 0), xdpPass},
		{"too short for flags", segment("192.0.0.2", unix.IPPROTO_TCP, 0)[:14+20+13], xdpPass},
		{"too short for a header", segment("192.0.0.2", unix.IPPROTO_TCP, 0)[:14], xdpPass},
		{"another protocol", slices.Concat(make([]byte, 12), []byte{8, 6}, make([]byte, 50)), xdpPass},
	} {
		got, err := program.Run(&ebpf.RunOptions{Data: c.frame})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
}
