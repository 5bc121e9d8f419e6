package guard

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// Whoever names a file system to mount(2) has the kernel load its module, though only a
// few can be mounted in a user namespace: of the others a job would get nothing but a
// host that has their code loaded, network file systems' too, until it reboots (seen).
// What machines can use, such as kinds of network interfaces, the kernel loads as ever.

// usable are the file systems with a module that a machine can mount.
var usable = []string{"fs-overlay", "fs-fuse", "fs-binfmt_misc"}

// refuseFileSystems is a program that ends with 1 for a module that may be loaded.
func refuseFileSystems() asm.Instructions {
	program := asm.Instructions{
		asm.LoadMem(asm.R3, asm.R1, 0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 8),
		asm.FnProbeReadKernelStr.Call(), // the last of the eight bytes is 0
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.DWord),
	}
	for _, name := range usable {
		program = append(program, asm.LoadImm(asm.R2, beginning(name, 7), asm.DWord), asm.JEq.Reg(asm.R1, asm.R2, "allow"))
	}
	program = append(program,
		asm.LoadImm(asm.R2, beginning("\xff\xff\xff", 3), asm.DWord),
		asm.And.Reg(asm.R1, asm.R2),
		asm.LoadImm(asm.R2, beginning("fs-", 3), asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "allow"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	)
	return append(program, allow()...)
}

// beginning is the first bytes of a name as this processor reads eight of them.
func beginning(name string, size int) int64 {
	var bytes [8]byte
	copy(bytes[:], name[:min(size, len(name))])
	return int64(binary.NativeEndian.Uint64(bytes[:]))
}
