package machine

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

// keepFromLoopback drops what the processes of a control group send to the
// host's loopback, but for questions to the resolver there, if any. The kernel
// keeps to it as long as there is the group.
//
// The pasta of 2023 connects to 127.0.0.1 when a job sends a packet to that
// address out of its network interface: root in a machine can do so (seen).
func keepFromLoopback(cgroup *os.File, resolver netip.Addr) error {
	filter, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "no_loopback", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress,
		Instructions: noLoopback(resolver), License: "GPL",
	})
	if err != nil {
		return fmt.Errorf("load the filter that keeps jobs from the host's loopback: %w", err)
	}
	defer filter.Close()
	// Not a link, which would end with this process.
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(cgroup.Fd()), Program: filter, Attach: ebpf.AttachCGroupInetEgress, Flags: unix.BPF_F_ALLOW_MULTI,
	})
	if err != nil {
		return fmt.Errorf("attach the filter that keeps jobs from the host's loopback: %w", err)
	}
	return nil
}

// Where things are in a packet (RFC 791, RFC 8200), and in struct __sk_buff
// (linux/bpf.h). Sockets of pasta's set no options, so ports follow an IPv4
// header of 20 bytes.
const (
	skbProtocol = 16
	ipv4To      = 16
	ipv4Port    = 22
	ipv6To      = 24
)

// noLoopback is the filter. It ends with 1 for a packet that may pass.
func noLoopback(resolver netip.Addr) asm.Instructions {
	// read copies bytes of the packet to the stack.
	read := func(at, size int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, at),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -16),
			asm.Mov.Imm(asm.R4, size),
			asm.FnSkbLoadBytes.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		}
	}
	load := func(at int16, size asm.Size) asm.Instruction { return asm.LoadMem(asm.R1, asm.RFP, at-16, size) }

	program := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R7, int32(inPacket16(unix.ETH_P_IPV6)), "ipv6"),
		asm.JNE.Imm(asm.R7, int32(inPacket16(unix.ETH_P_IP)), "pass"),
	}
	program = append(program, read(ipv4To, 4)...)
	program = append(program, load(0, asm.Byte), asm.JNE.Imm(asm.R1, 127, "pass"))
	if resolver.IsValid() {
		bytes := resolver.As4()
		program = append(program, load(0, asm.Word), asm.JNE.Imm32(asm.R1, int32(binary.NativeEndian.Uint32(bytes[:])), "drop"))
		program = append(program, read(ipv4Port, 2)...)
		program = append(program, load(0, asm.Half), asm.JEq.Imm(asm.R1, int32(inPacket16(53)), "pass"))
	}
	program = append(program, asm.Ja.Label("drop"))

	ipv6 := read(ipv6To, 16)
	ipv6[0] = ipv6[0].WithSymbol("ipv6")
	program = append(program, ipv6...)
	program = append(program,
		load(0, asm.DWord), asm.JNE.Imm(asm.R1, 0, "pass"),
		load(8, asm.Word), asm.JNE.Imm(asm.R1, 0, "pass"),
		load(12, asm.Word), asm.JNE.Imm32(asm.R1, int32(inPacket32(1)), "pass"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
		asm.Return(),
	)
	return program
}

// inPacket16 and inPacket32 are numbers as this processor reads them out of a
// packet, where the highest byte comes first.
func inPacket16(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

func inPacket32(n uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, n))
}
