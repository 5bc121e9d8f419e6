package network

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// loopback is where services listen that are only for the host itself. If a job sends a
// packet for 127.0.0.1 out of its network interface, which root in a machine can do, the
// pasta of 2023 connects to that address of the host (seen).
var loopback = prefixes("127.0.0.0/8", "::1/128")

// metadata are the addresses of the metadata services of clouds. Such a service tells all
// programs on a host the host's name, role and keys. pasta sends from the host itself, so a
// limit of hops does not keep the answer from jobs (seen). Nearly all clouds use link-local
// addresses, mostly 169.254.169.254 and fe80::a9fe:a9fe, so all of those are blocked. The only
// link-local address that a job may need is a resolver's.
var metadata = prefixes(
	"169.254.0.0/16", "fe80::/10",
	"64:ff9b::a9fe:0/112", // 169.254.0.0/16 behind NAT64
	"100.100.100.200/32",  // Alibaba
	"fd00:100::100:200/128",
	"168.63.129.16/32",       // Azure, which also resolves names there
	"192.0.0.192/32",         // Oracle's former
	"fd00:c1::a9fe:a9fe/128", // Oracle
	"fd00:ec2::/112",         // Amazon: ::254, and ::23 for pods
	"fd20:ce::254/128",       // Google
	"fd00:42::42/128",        // Scaleway
	"fd00:a9fe:a9fe::/64",    // Akamai
)

// IsHosts says whether an address is the host's own to reach: its loopback, or the metadata
// service of its cloud. What connects for a job must not connect there.
func IsHosts(address netip.Addr) bool {
	address = address.Unmap()
	for _, closed := range [][]netip.Prefix{loopback, metadata} {
		for _, prefix := range closed {
			if prefix.Contains(address) {
				return true
			}
		}
	}
	return address.IsUnspecified() || address.IsMulticast()
}

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

// egress says where the processes of a control group may not send packets.
type egress struct {
	closed []netip.Prefix
	// resolvers may be asked on port 53, also at a closed address.
	resolvers []netip.Addr
}

// keepFrom keeps the processes of a control group from sending to closed addresses. It checks
// twice. The check of packets holds for all protocols, and comes after the host's firewall has
// redirected them. The check of connect(2) comes before the firewall, so it also holds for
// destinations that the firewall redirects, and the job gets an error at once.
func (e egress) keepFrom(cgroup *os.File) error {
	err := attach(cgroup,
		hook{ebpf.AttachCGroupInetEgress, e.packets()},
		hook{ebpf.AttachCGroupInet4Connect, e.calls(headers[0])},
		hook{ebpf.AttachCGroupInet6Connect, e.calls(headers[1])},
	)
	if err != nil {
		return fmt.Errorf("load the filter for addresses that only the host may reach: %w", err)
	}
	return nil
}

// header holds the offsets of fields in a packet: RFC 791, RFC 8200. The one of the port is
// right only if the header has no options or extensions.
type header struct {
	name                     string
	size                     int // of an address
	protocol, from, to, port int32
	call                     int16 // where the address is in struct bpf_sock_addr
}

var headers = []header{
	{name: "ipv4", size: 4, protocol: 9, from: 12, to: 16, port: 22, call: callIPv4},
	{name: "ipv6", size: 16, protocol: 6, from: 8, to: 24, port: 42, call: callIPv6},
}

// has says whether an address is of this kind.
func (h header) has(address netip.Addr) bool { return address.BitLen() == 8*h.size }

// skbProtocol is where a packet's protocol is in struct __sk_buff (linux/bpf.h).
const skbProtocol = 16

// packets is asked for each packet that is sent. It returns 1 to let the packet pass, 0 to drop
// it.
func (e egress) packets() asm.Instructions {
	program := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R7, inPacket16(unix.ETH_P_IP), "ipv4"),
		asm.JEq.Imm(asm.R7, inPacket16(unix.ETH_P_IPV6), "ipv6"),
		asm.Ja.Label("allow"),
	}
	for _, header := range headers {
		program = append(program, labelled(header.name, header.read(header.to, header.size))...)
		program = append(program, e.decide(header, header.isQuestion())...)
	}
	return append(program, dropOrAllow()...)
}

// calls is asked for each connect(2). It returns 1 to allow the call, 0 to refuse it.
func (e egress) calls(h header) asm.Instructions {
	program := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for at := range int16(h.size / 4) {
		program = append(program, asm.LoadMem(asm.R1, asm.R6, h.call+4*at, asm.Word), asm.StoreMem(asm.RFP, 4*at-16, asm.R1, asm.Word))
	}
	program = append(program, e.decide(h, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, callPort, asm.Word),
		asm.JEq.Imm(asm.R1, inPacket16(53), "allow"),
		asm.Ja.Label("drop"),
	})...)
	return append(program, dropOrAllow()...)
}

func dropOrAllow() asm.Instructions {
	return append(asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"), asm.Return()}, allow()...)
}

// decide decides about the destination whose address is on the stack. For the address of a
// resolver, the program goes on with isQuestion, which checks the port.
func (e egress) decide(h header, isQuestion asm.Instructions) asm.Instructions {
	var program asm.Instructions
	closed, question := h.name+" closed", h.name+" question"
	for i, prefix := range e.closed {
		if h.has(prefix.Addr()) {
			program = append(program, goIfWithin(prefix, closed, fmt.Sprint(closed, i))...)
		}
	}
	program = append(program, asm.Ja.Label("allow"), nothing(closed))
	none := len(program)
	for i, address := range e.resolvers {
		if h.has(address) {
			program = append(program, goIfWithin(netip.PrefixFrom(address, address.BitLen()), question, fmt.Sprint(question, i))...)
		}
	}
	program = append(program, asm.Ja.Label("drop"))
	if len(program) == none+1 { // no resolver: the kernel refuses programs with unreachable parts
		return program
	}
	return append(program, labelled(question, isQuestion)...)
}

// isQuestion allows a packet only if it goes to port 53, by UDP or TCP.
func (h header) isQuestion() asm.Instructions {
	var program asm.Instructions
	if h.size == 4 { // 0x45 is IPv4 without options, which would move the port
		program = append(h.read(0, 1), fromStack(0, asm.Byte), asm.JNE.Imm(asm.R1, 0x45, "drop"))
	}
	program = append(program, h.read(h.protocol, 1)...)
	program = append(program,
		fromStack(0, asm.Byte),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_UDP, h.name+" port"),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_TCP, "drop"),
	)
	program = append(program, labelled(h.name+" port", h.read(h.port, 2))...)
	return append(program, fromStack(0, asm.Half), asm.JEq.Imm(asm.R1, inPacket16(53), "allow"), asm.Ja.Label("drop"))
}

// read copies bytes of the packet to the place on the stack where fromStack looks.
func (h header) read(at int32, size int) asm.Instructions { return h.copyTo(-16, at, size) }

func (h header) copyTo(stack, at int32, size int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, at),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, int32(size)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// fromStack loads into R1 what read has copied, from its byte at.
func fromStack(at int16, size asm.Size) asm.Instruction {
	return asm.LoadMem(asm.R1, asm.RFP, at-16, size)
}

// goIfWithin jumps to a label if the address on the stack lies in a prefix. name is a label that
// no other part of the program has.
func goIfWithin(prefix netip.Prefix, to, name string) asm.Instructions {
	address, mask := prefix.Masked().Addr().AsSlice(), maskOf(prefix)
	var program asm.Instructions
	for at := 0; at < len(address) && mask[at] != 0; at += 4 {
		program = append(program,
			fromStack(int16(at), asm.Word),
			asm.And.Imm32(asm.R1, word(mask[at:])),
			asm.JNE.Imm32(asm.R1, word(address[at:]), name),
		)
	}
	return append(program, asm.Ja.Label(to), nothing(name))
}

// maskOf has a 1 for each bit that the addresses of a prefix have in common.
func maskOf(prefix netip.Prefix) []byte {
	mask := make([]byte, prefix.Addr().BitLen()/8)
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return mask
}

// nothing is a place to go on at.
func nothing(label string) asm.Instruction { return asm.Mov.Imm(asm.R0, 0).WithSymbol(label) }

func labelled(label string, program asm.Instructions) asm.Instructions {
	program[0] = program[0].WithSymbol(label)
	return program
}
