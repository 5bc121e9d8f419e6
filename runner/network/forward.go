package network

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A resolver on the host's loopback answers jobs at resolverAddress. The kernel
// exchanges the two in the calls that pasta makes, which so needs to know nothing of
// it: pasta's own way is for UDP only in that of 2023, and needs to read the host's
// resolv.conf, which its profile of AppArmor forbids where that is a link to
// systemd-resolved's.

// forwardNames sends questions of a control group's processes on to a resolver.
func forwardNames(cgroup *os.File, resolver netip.Addr) error {
	own := netip.MustParseAddr(resolverAddress)
	err := attach(cgroup,
		hook{ebpf.AttachCGroupInet4Connect, exchange(own, resolver)},
		hook{ebpf.AttachCGroupUDP4Sendmsg, exchange(own, resolver)},
		hook{ebpf.AttachCGroupUDP4Recvmsg, exchange(resolver, own)},
	)
	if err != nil {
		return fmt.Errorf("load the forwarder of name lookups: %w", err)
	}
	return nil
}

// exchange puts one address in the place of another, on port 53.
func exchange(what, with netip.Addr) asm.Instructions {
	return append(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, callPort, asm.Word),
		asm.JNE.Imm(asm.R2, inPacket16(53), "allow"),
		asm.LoadMem(asm.R2, asm.R1, callIPv4, asm.Word),
		asm.JNE.Imm32(asm.R2, ipv4Word(what), "allow"),
		asm.Mov.Imm32(asm.R2, ipv4Word(with)),
		asm.StoreMem(asm.R1, callIPv4, asm.R2, asm.Word),
	}, allow()...)
}
