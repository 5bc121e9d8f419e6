package guard

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// mount(2) with the name of a file system makes the kernel load its module, also for a process that cannot mount it.
// Few file systems can be mounted in a user namespace. A job could load the code of all others, such as network file
// systems, for as long as the host runs (seen). The kernel still loads other modules, such as those for network
// interfaces, which machines can use.

// usable are the modules of file systems that a machine can mount.
var usable = []string{"fs-overlay", "fs-fuse", "fs-binfmt_misc"}

// refuseFileSystems returns a program that allows (1) modules of usable file systems, and modules that are not for
// file systems.
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

// beginning returns the first bytes of a name as a 64-bit number, in the byte order of this processor.
func beginning(name string, size int) int64 {
	var bytes [8]byte
	copy(bytes[:], name[:min(size, len(name))])
	return int64(binary.NativeEndian.Uint64(bytes[:]))
}
