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

// restrictFamilies is the part of it that systemd does, by a filter of socket(2). A
// filter does not see which family socketcall(2) is for, which any program of an amd64
// may call as if it were one of an i386, nor what io_uring(7) does.
func restrictFamilies() systemd.Property {
	type list struct {
		Allow    bool
		Families []string
	}
	names := list{Allow: true}
	for name := range families {
		names.Families = append(names.Families, name)
	}
	return systemd.Set("RestrictAddressFamilies", names)
}

// keepToFamilies asks the kernel to keep a machine to them, whichever way a socket is
// made. Not every kernel can (CheckFamilies); then there is the filter only.
func (s Store) keepToFamilies(ctx context.Context, bus *systemd.Bus, record Record) error {
	if record.Privileged {
		return nil
	}
	_, service, err := s.serviceGroup(ctx, bus, record.ID)
	if err != nil {
		return err
	}
	cgroup, err := os.Open(service)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	program, err := loadFamilies()
	if err != nil {
		s.logf("%s: %v", Name(record.ID), err)
		return nil
	}
	defer program.Close()
	if err := attachProgram(cgroup, program, ebpf.AttachLSMCgroup); err != nil { // as on arm64 before Linux 6.4
		s.logf("%s: keep it to some address families: %v", Name(record.ID), err)
	}
	return nil
}

// CheckFamilies says whether this kernel asks a program which sockets a control group
// makes: Linux 6.0 with the security module bpf.
func CheckFamilies() error {
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	if err == nil && !slices.Contains(strings.Split(strings.TrimSpace(string(modules)), ","), "bpf") {
		return fmt.Errorf("bpf is none of the kernel's security modules %s", modules)
	}
	program, err := loadFamilies()
	if err != nil {
		return err
	}
	return program.Close()
}

// loadFamilies loads such a program, which ends with 1 for a family that may be.
func loadFamilies() (*ebpf.Program, error) {
	program := asm.Instructions{asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord)}
	for _, family := range families {
		program = append(program, asm.JEq.Imm32(asm.R2, family, "allow"))
	}
	program = append(program, asm.Mov.Imm(asm.R0, 0), asm.Return())
	return loadLSM("socket_create", append(program, allow()...))
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
