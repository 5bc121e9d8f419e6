package network

import (
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The pasta of 2023 (Debian 12) passes on every datagram that arrives at a port from which
// it has sent one, whoever sent it. So another computer that tries all ports of the host
// would reach machines. These programs note to which address and port each socket has sent
// a datagram, and drop datagrams from all others. The pasta of 2025 (Debian 13) needs no
// help: it connects its sockets.

// mayBeAsked is how many pairs of a socket and a peer are remembered for a machine. Above
// that, the pair that was unused for the longest time is forgotten.
const mayBeAsked = 16384

// A key of the map, on a program's stack: the socket's number (cookie), the address of its
// peer in 16 bytes, and the peer's port. aside is scratch space that is not part of the key.
const (
	aside       = -40
	askedKey    = -32
	askedWhom   = -24
	askedPort   = -8
	askedLength = 32
)

// letInAnswers drops all datagrams to a control group's processes, except answers: those
// from an address and port to which the receiving socket has sent a datagram.
func letInAnswers(cgroup *os.File) error {
	asked, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: askedLength, ValueSize: 4, MaxEntries: mayBeAsked})
	if err != nil {
		return fmt.Errorf("create the map of whom sockets asked: %w", err)
	}
	defer asked.Close() // the programs keep it
	err = attach(cgroup,
		hook{ebpf.AttachCGroupUDP4Sendmsg, noteAsked(asked, headers[0])},
		hook{ebpf.AttachCGroupUDP6Sendmsg, noteAsked(asked, headers[1])},
		hook{ebpf.AttachCGroupInetIngress, dropUnasked(asked)},
	)
	if err != nil {
		return fmt.Errorf("load the filter for answers to datagrams: %w", err)
	}
	return nil
}

// newKey begins a key, with the number of the socket for which the program runs; R6 holds the
// program's context. The rest of the key is zero.
func newKey() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.RFP, askedKey, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, askedWhom, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, askedWhom+8, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, askedPort, asm.R1, asm.DWord),
	}
}

// noteAsked is asked for each sendmsg(2). It notes the destination.
func noteAsked(asked *ebpf.Map, h header) asm.Instructions {
	program := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, newKey()...)
	for at := int16(0); at < int16(h.size); at += 4 {
		program = append(program, asm.LoadMem(asm.R1, asm.R6, h.call+at, asm.Word), asm.StoreMem(asm.RFP, askedWhom+at, asm.R1, asm.Word))
	}
	program = append(program,
		asm.LoadMem(asm.R1, asm.R6, callPort, asm.Word),
		asm.StoreMem(asm.RFP, askedPort, asm.R1, asm.Half),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, aside, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, asked.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, askedKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, aside),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
	)
	return append(program, allow()...)
}

// Where things are in struct __sk_buff and struct bpf_sock (linux/bpf.h).
const (
	skbSocket      = 168
	socketProtocol = 12
	socketPeerPort = 48
)

// dropUnasked is asked for each packet that comes in. It returns 1 to let the packet pass, 0 to
// drop it.
func dropUnasked(asked *ebpf.Map) asm.Instructions {
	program := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbSocket, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "allow"),
		asm.FnSkFullsock.Call(),
		asm.JEq.Imm(asm.R0, 0, "allow"),
		asm.LoadMem(asm.R1, asm.R0, socketProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_UDP, "allow"),
		asm.LoadMem(asm.R1, asm.R0, socketPeerPort, asm.Half),
		asm.JNE.Imm(asm.R1, 0, "allow"), // connected: the kernel itself drops what others send
	}
	program = append(program, newKey()...)
	program = append(program,
		asm.LoadMem(asm.R7, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R7, inPacket16(unix.ETH_P_IP), "ipv4"),
		asm.JEq.Imm(asm.R7, inPacket16(unix.ETH_P_IPV6), "ipv6"),
		asm.Ja.Label("drop"),
	)
	for _, h := range headers {
		program = append(program, labelled(h.name, h.sender())...)
	}
	program = append(program,
		asm.LoadMapPtr(asm.R1, asked.FD()).WithSymbol("look"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, askedKey),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "allow"),
	)
	return append(program, dropOrAllow()...)
}

// sender copies the source of a datagram into the key.
func (h header) sender() asm.Instructions {
	program := slices.Concat(h.copyTo(aside, h.protocol, 1), asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, aside, asm.Byte),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_UDP, "drop"),
	})
	if h.size == 4 { // 0x45 is IPv4 without options, which would move the port
		program = append(program, h.copyTo(aside, 0, 1)...)
		program = append(program, asm.LoadMem(asm.R1, asm.RFP, aside, asm.Byte), asm.JNE.Imm(asm.R1, 0x45, "drop"))
	}
	program = append(program, h.copyTo(askedWhom, h.from, h.size)...)
	program = append(program, h.copyTo(askedPort, h.port-2, 2)...)
	return append(program, asm.Ja.Label("look"))
}
