package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hook is a BPF program and the point in the kernel at which it runs.
type hook struct {
	of      ebpf.AttachType
	program asm.Instructions
}

// kind is the type of programs for this point.
func (h hook) kind() ebpf.ProgramType {
	switch h.of {
	case ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress:
		return ebpf.CGroupSKB
	case ebpf.AttachCGroupSetsockopt:
		return ebpf.CGroupSockopt
	}
	return ebpf.CGroupSockAddr
}

// attach loads programs and attaches them to a control group. From then on they run for the
// processes of the group, in this order, until the group is removed.
func attach(cgroup *os.File, hooks ...hook) error {
	for _, h := range hooks {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: h.kind(), AttachType: h.of, Instructions: h.program, License: "GPL"})
		if err != nil {
			return fmt.Errorf("load the BPF program %s: %w", h.of, err)
		}
		defer program.Close()
		// Not as a link (BPF_LINK_CREATE): that would be detached when this process ends.
		err = link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: int(cgroup.Fd()), Program: program, Attach: h.of, Flags: unix.BPF_F_ALLOW_MULTI,
		})
		if err != nil {
			return fmt.Errorf("attach the BPF program %s: %w", h.of, err)
		}
	}
	return nil
}

// Offsets in struct bpf_sock_addr (linux/bpf.h), the arguments of a call that a program may
// change. The port is in network byte order, in 32 bits.
const (
	callIPv4   = 4
	callIPv6   = 8
	callPort   = 24
	callType   = 32
	callSocket = 64
)

// allow ends a program: the call is made.
func allow() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 1).WithSymbol("allow"), asm.Return()}
}

// inPacket16 returns the number that this processor reads where a packet contains n, in network
// byte order.
func inPacket16(n uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}

// word returns four bytes of a packet as the number that this processor reads.
func word(bytes []byte) int32 { return int32(binary.NativeEndian.Uint32(bytes)) }

// ipv4Word returns an IPv4 address as the number that this processor reads.
func ipv4Word(address netip.Addr) int32 { return word(address.AsSlice()) }
