package network

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A resolver on the host's loopback answers jobs at resolverAddress. These programs exchange the
// two addresses in pasta's system calls, so pasta needs no options for it. Its option
// --dns-forward is not enough: the pasta of 2023 forwards UDP only, and needs to read the host's
// resolv.conf. Its AppArmor profile forbids that if the file is a link to systemd-resolved's.

// forwardNames redirects name lookups of a control group's processes from resolverAddress to a
// resolver of the host.
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

// exchange replaces the address what by the address with, in calls for port 53.
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
