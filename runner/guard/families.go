package guard

import (
	"maps"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Sockets of some address families have no namespace: by AF_VSOCK a job would talk to
// the hypervisor, to guests and to other machines whatever its network is, by
// AF_BLUETOOTH to what is near. Others a job may have for its own, but each of them is
// a module of the kernel that whoever opens such a socket has loaded. So machines have
// those families that Debian's programs use, and no others.

// families are these, as systemd.exec(5) and the kernel call them.
var families = map[string]int32{
	"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6,
	"AF_NETLINK": unix.AF_NETLINK, "AF_PACKET": unix.AF_PACKET,
}

// Families are their names. systemd keeps a machine to them too, by a filter of socket(2),
// which each kernel has. A filter does not see which family socketcall(2) is for, which any
// program of an amd64 may call as if it were one of an i386, nor what io_uring(7) does.
func Families() []string { return slices.Sorted(maps.Keys(families)) }

// refuseFamilies is a program that ends with 1 for a family that may be, and for sockets
// of the kernel's own, which it makes with each network namespace.
func refuseFamilies() asm.Instructions {
	program := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R3, asm.R1, 24, asm.DWord), // the fourth argument: is it for the kernel?
		asm.JNE.Imm(asm.R3, 0, "allow"),
	}
	for _, name := range Families() {
		program = append(program, asm.JEq.Imm32(asm.R2, families[name], "allow"))
	}
	program = append(program, asm.Mov.Imm(asm.R0, 0), asm.Return())
	return append(program, allow()...)
}
