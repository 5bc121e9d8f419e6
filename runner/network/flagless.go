package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The pasta of 2023 announces a TCP window with a segment that has no flags at all. A socket
// ignores such a segment. But if the machine forwards the connection for a container, connection
// tracking finds the segment invalid and does not translate its address. The machine then takes
// it for a segment to itself and answers that there is no such connection (RST), and pasta ends
// the connection (seen).
//
// So the machine's interface drops such segments as they come in.

// dropFlagless makes a machine's interface drop segments without flags. network is the machine's
// network namespace.
func dropFlagless(network *os.File) error {
	program, err := loadFlagless()
	if err != nil {
		return fmt.Errorf("load the BPF program for %s: %w", Interface, err)
	}
	defer program.Close()
	if err := inNetwork(network, func() error { return attachXDP(Interface, program) }); err != nil {
		return fmt.Errorf("attach the BPF program to %s: %w", Interface, err)
	}
	return nil
}

// loadFlagless loads the program. The flag says that the program can handle a packet in several
// fragments, of which it sees the first. So Linux 6.9 and newer need not copy the packet.
func loadFlagless() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, Instructions: flagless(), License: "GPL"})
}

// Verdicts on a frame: enum xdp_action (linux/bpf.h).
const (
	xdpDrop = 1
	xdpPass = 2
)

// Offsets in a frame as pasta makes it: without VLAN tags, and IPv6 without extensions.
const (
	frameKind = 12 // the EtherType
	frameIP   = 14
	flagsOf   = 13 // a TCP header's flags
)

// flagless drops TCP segments without flags, and passes all else (XDP).
func flagless() asm.Instructions {
	load := func(at int16, size asm.Size) asm.Instruction { return asm.LoadMem(asm.R4, asm.R2, at, size) }
	// has passes a frame that is shorter than length.
	has := func(length int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R5, asm.R2), asm.Add.Imm(asm.R5, length), asm.JGT.Reg(asm.R5, asm.R3, "pass"),
		}
	}
	program := asm.Instructions{asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.LoadMem(asm.R3, asm.R1, 4, asm.Word)}
	program = append(program, has(frameIP)...)
	program = append(program,
		load(frameKind, asm.Half),
		asm.JEq.Imm(asm.R4, inPacket16(unix.ETH_P_IP), "ipv4"),
		asm.JNE.Imm(asm.R4, inPacket16(unix.ETH_P_IPV6), "pass"),
	)
	const size6, size4 = 40, 20
	program = append(program, has(frameIP+size6+flagsOf+1)...)
	program = append(program,
		load(frameIP+6, asm.Byte),
		asm.JNE.Imm(asm.R4, unix.IPPROTO_TCP, "pass"),
		load(frameIP+size6+flagsOf, asm.Byte),
		asm.Ja.Label("flags"),
	)
	program = append(program, labelled("ipv4", has(frameIP+size4+flagsOf+1))...)
	return append(program,
		load(frameIP, asm.Byte),
		asm.JNE.Imm(asm.R4, 0x45, "pass"), // options
		load(frameIP+9, asm.Byte),
		asm.JNE.Imm(asm.R4, unix.IPPROTO_TCP, "pass"),
		load(frameIP+size4+flagsOf, asm.Byte),
		asm.JNE.Imm(asm.R4, 0, "pass").WithSymbol("flags"),
		asm.Mov.Imm(asm.R0, xdpDrop), asm.Return(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"), asm.Return(),
	)
}

// attachXDP attaches a program to an interface of this thread's namespace, for as long as
// there is that: rtnetlink(7). A link of bpf(2) would end with this process.
func attachXDP(name string, program *ebpf.Program) error {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	message := struct {
		unix.NlMsghdr
		unix.IfInfomsg
		xdp, fd unix.RtAttr
		program int32
	}{
		NlMsghdr:  unix.NlMsghdr{Type: unix.RTM_SETLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK},
		IfInfomsg: unix.IfInfomsg{Index: int32(device.Index)},
		xdp:       unix.RtAttr{Len: 12, Type: unix.IFLA_XDP | unix.NLA_F_NESTED},
		fd:        unix.RtAttr{Len: 8, Type: unix.IFLA_XDP_FD},
		program:   int32(program.FD()),
	}
	message.Len = uint32(binary.Size(message))
	var request bytes.Buffer
	if err := binary.Write(&request, binary.NativeEndian, message); err != nil {
		return err
	}
	return askKernel(request.Bytes())
}

// askKernel sends one rtnetlink message, and returns the kernel's answer to it.
func askKernel(request []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	const number = unix.SizeofNlMsghdr // where a negative errno follows, or 0
	if n < number+4 {
		return fmt.Errorf("rtnetlink answered %d bytes", n)
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[number:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
