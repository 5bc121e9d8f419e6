package guard

import (
	"maps"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Some address families have no namespaces. With AF_VSOCK, a job could talk to the hypervisor, to guests and to other
// machines, whatever its network is; with AF_BLUETOOTH, to devices nearby. Other families would be harmless, but the
// kernel loads a module for each when a socket is opened. So machines have only the families that programs of Debian
// use.

// families are these, with the names of systemd.exec(5) and the numbers of the kernel.
var families = map[string]int32{
	"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6,
	"AF_NETLINK": unix.AF_NETLINK, "AF_PACKET": unix.AF_PACKET,
}

// Families returns their names. systemd also restricts machines to them, with a filter of socket(2), which each kernel
// supports. A filter does not see io_uring(7), nor the family of socketcall(2), which programs on amd64 can call in
// 32-bit mode.
func Families() []string { return slices.Sorted(maps.Keys(families)) }

// refuseFamilies returns a program that allows (1) the families above, and sockets of the kernel itself, which it makes
// for each network namespace.
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
