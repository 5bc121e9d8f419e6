package network

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// packet is one with an Ethernet header, which the kernel takes off.
func packet(to netip.Addr, protocol byte, port uint16, options ...byte) []byte {
	body := []byte{0, 99, byte(port >> 8), byte(port), 0, 8, 0, 0}
	header := make([]byte, 40)
	kind := []byte{0x86, 0xdd}
	if to.Is4() {
		header = header[:20]
		header[0], header[9] = byte(0x45+len(options)/4), protocol
		copy(header[16:], to.AsSlice())
		kind = []byte{8, 0}
	} else {
		header[0], header[6] = 0x60, protocol
		copy(header[24:], to.AsSlice())
	}
	return slices.Concat(make([]byte, 12), kind, header, options, body)
}

func TestAFilterDropsWhatItShouldAndNothingElse(t *testing.T) {
	resolvers := []netip.Addr{netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("169.254.169.253"), netip.MustParseAddr("fe80::53")}
	filter, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
		Instructions: egress{slices.Concat(loopback, metadata), resolvers}.packets(),
	})
	if err != nil {
		t.Skip("this kernel, or container, loads no BPF: ", err)
	}
	defer filter.Close()
	for _, c := range []struct {
		to       string
		protocol byte
		port     uint16
		options  []byte
		passes   uint32
	}{
		{to: "192.0.2.2", protocol: 6, port: 80, passes: 1},
		{to: "128.0.0.1", protocol: 6, port: 80, passes: 1},
		{to: "169.253.1.1", protocol: 17, port: 80, passes: 1},
		{to: "100.100.100.201", protocol: 6, port: 80, passes: 1},
		{to: "2001:db8::1", protocol: 6, port: 80, passes: 1},
		{to: "fec0::1", protocol: 6, port: 80, passes: 1},
		{to: "fd00:ec2:0:0:0:0:1:254", protocol: 6, port: 80, passes: 1},
		{to: "::2", protocol: 6, port: 80, passes: 1},
		{to: "127.0.0.1", protocol: 6, port: 53},
		{to: "127.255.255.255", protocol: 6, port: 80},
		{to: "::1", protocol: 6, port: 80},
		{to: "169.254.169.254", protocol: 6, port: 80},
		{to: "169.254.169.254", protocol: 17, port: 53},
		{to: "100.100.100.200", protocol: 6, port: 80},
		{to: "febf::1", protocol: 58},
		{to: "fd00:ec2::254", protocol: 6, port: 80},
		{to: "64:ff9b::169.254.1.1", protocol: 6, port: 80},
		{to: "127.0.0.53", protocol: 17, port: 53, passes: 1},
		{to: "127.0.0.53", protocol: 6, port: 53, passes: 1},
		{to: "127.0.0.53", protocol: 6, port: 80},
		{to: "127.0.0.53", protocol: 1, port: 53},
		{to: "169.254.169.253", protocol: 17, port: 53, passes: 1},
		{to: "169.254.169.253", protocol: 6, port: 80},
		{to: "169.254.169.253", protocol: 6, port: 80, options: []byte{1, 1, 0, 53}},
		{to: "fe80::53", protocol: 17, port: 53, passes: 1},
		{to: "fe80::53", protocol: 17, port: 54},
		{to: "fe80::53", protocol: 43, port: 53}, // a routing header
	} {
		got, err := filter.Run(&ebpf.RunOptions{Data: packet(netip.MustParseAddr(c.to), c.protocol, c.port, c.options...)})
		if err != nil {
			t.Fatal(err)
		}
		if got != c.passes {
			t.Errorf("%+v: %d", c, got)
		}
	}

}
