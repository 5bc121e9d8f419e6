package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/systemd"
)

// guard has the kernel ask programs before it does some things for a machine, whichever
// way it is asked for them; a filter of system calls sees numbers only. Not every kernel
// can (CheckGuard).
func (s Store) guard(ctx context.Context, bus *systemd.Bus, record Record) error {
	if record.Privileged {
		return nil
	}
	_, cgroup, err := s.openGroup(ctx, bus, record.ID)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	for hook, instructions := range map[string]asm.Instructions{
		"socket_create": refuseFamilies(), "kernel_module_request": refuseFileSystems(),
	} {
		program, err := loadLSM(hook, instructions)
		if err != nil {
			s.logf("%s: %v", Name(record.ID), err)
			return nil
		}
		defer program.Close()
		if err := attachProgram(cgroup, program, ebpf.AttachLSMCgroup); err != nil { // as on arm64 before Linux 6.4
			s.logf("%s: attach a program to the kernel's hook %s: %v", Name(record.ID), hook, err)
		}
	}
	return nil
}

// CheckGuard says whether this kernel asks programs what a control group does: Linux 6.0
// with the security module bpf.
func CheckGuard() error {
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	if err == nil && !slices.Contains(strings.Split(strings.TrimSpace(string(modules)), ","), "bpf") {
		return fmt.Errorf("bpf is none of the kernel's security modules %s", modules)
	}
	program, err := loadLSM("socket_create", refuseFamilies())
	if err != nil {
		return err
	}
	return program.Close()
}

// loadLSM loads a program that a hook of the kernel's security modules is to ask for
// one control group. cilium/ebpf knows those only that are for all processes.
func loadLSM(name string, program asm.Instructions) (*ebpf.Program, error) {
	function, err := kernelFunction("bpf_lsm_" + name)
	if err != nil {
		return nil, err
	}
	var code bytes.Buffer
	if err := program.Marshal(&code, byteOrder()); err != nil {
		return nil, err
	}
	instructions, license := code.Bytes(), []byte("GPL\x00")
	arguments := struct { // of BPF_PROG_LOAD: union bpf_attr (linux/bpf.h)
		kind, count           uint32
		instructions, license unsafe.Pointer
		_                     [10]uint32 // a log, flags and a name
		_, expectedAttachType uint32
		_                     [9]uint32 // what a compiler says of it
		attachTo              uint32
	}{
		kind: unix.BPF_PROG_TYPE_LSM, count: uint32(len(instructions) / asm.InstructionSize),
		instructions: unsafe.Pointer(&instructions[0]), license: unsafe.Pointer(&license[0]),
		expectedAttachType: unix.BPF_LSM_CGROUP, attachTo: function,
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&arguments)), unsafe.Sizeof(arguments))
	if errno != 0 {
		return nil, fmt.Errorf("load a program for the kernel's hook %s: %w", name, errno)
	}
	return ebpf.NewProgramFromFD(int(fd))
}

func byteOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}
