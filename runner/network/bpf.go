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

// hook is a program, and of what the kernel asks it.
type hook struct {
	of      ebpf.AttachType
	program asm.Instructions
}

// kind is what the kernel calls programs for that.
func (h hook) kind() ebpf.ProgramType {
	switch h.of {
	case ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress:
		return ebpf.CGroupSKB
	case ebpf.AttachCGroupSetsockopt:
		return ebpf.CGroupSockopt
	}
	return ebpf.CGroupSockAddr
}

// attach loads programs and attaches them to a control group, for whose processes the
// kernel then asks them, in this order, as long as there is the group.
func attach(cgroup *os.File, hooks ...hook) error {
	for _, h := range hooks {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: h.kind(), AttachType: h.of, Instructions: h.program, License: "GPL"})
		if err != nil {
			return fmt.Errorf("load the BPF program %s: %w", h.of, err)
		}
		defer program.Close()
		// No link, which would end with this process.
		err = link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: int(cgroup.Fd()), Program: program, Attach: h.of, Flags: unix.BPF_F_ALLOW_MULTI,
		})
		if err != nil {
			return fmt.Errorf("attach the BPF program %s: %w", h.of, err)
		}
	}
	return nil
}

// Where things are in struct bpf_sock_addr (linux/bpf.h): the arguments of a call
// that a program may change. The port is that of a packet, in 32 bits.
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

// inPacket16 is a number as this processor reads it out of a packet, where the
// highest byte comes first.
func inPacket16(n uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}

// word is four bytes of a packet as this processor reads them.
func word(bytes []byte) int32 { return int32(binary.NativeEndian.Uint32(bytes)) }

// ipv4Word is an IPv4 address, likewise.
func ipv4Word(address netip.Addr) int32 { return word(address.AsSlice()) }
