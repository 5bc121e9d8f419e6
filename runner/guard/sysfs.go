package guard

import (
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A process that makes a network namespace can mount a sysfs for it and write there, although the machine's own sysfs
// is read-only. So a job, or a container in it, could make the kernel start a thread for each of the 4096 queues that
// an interface can have (/sys/class/net/*/threaded). These threads count to no machine. No program in a machine needs
// to write to a sysfs.

// refuseSysfs returns a program that allows (1) every file, except files of a sysfs that are opened for writing.
func refuseSysfs(memberAt func(structure, member string) (int16, error)) (asm.Instructions, error) {
	const fmodeWrite = 2 // linux/fs.h
	program := asm.Instructions{asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord)}
	for _, step := range []struct {
		of, member string
		size       asm.Size
	}{{"file", "f_mode", asm.Word}, {"file", "f_inode", asm.DWord}, {"inode", "i_sb", asm.DWord}, {"super_block", "s_magic", asm.DWord}} {
		at, err := memberAt(step.of, step.member)
		if err != nil {
			return nil, err
		}
		if step.member == "f_mode" {
			program = append(program, asm.LoadMem(asm.R3, asm.R2, at, step.size), asm.And.Imm(asm.R3, fmodeWrite), asm.JEq.Imm(asm.R3, 0, "allow"))
			continue
		}
		program = append(program, asm.LoadMem(asm.R2, asm.R2, at, step.size))
	}
	program = append(program, asm.JNE.Imm(asm.R2, unix.SYSFS_MAGIC, "allow"), asm.Mov.Imm(asm.R0, 0), asm.Return())
	return append(program, allow()...), nil
}
