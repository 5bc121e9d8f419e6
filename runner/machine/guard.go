package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// guard has the kernel ask programs before it does some things for a machine, whichever
// way it is asked for them; a filter of system calls sees numbers only. Not every kernel
// can (CheckGuard).
func (s Store) guard(service *os.File, record Record) error {
	if record.Privileged {
		return nil
	}
	if err := attachGuard(service); err != nil {
		s.logf("%s: %v", Name(record.ID), err)
	}
	return nil
}

// attachGuard attaches the programs to a control group: each that this kernel takes. One
// that takes none is not asked for its types, which takes 15 ms.
func attachGuard(cgroup *os.File) error {
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return fmt.Errorf("which security modules the kernel has: %w", err)
	}
	if !slices.Contains(strings.Split(strings.TrimSpace(string(modules)), ","), "bpf") {
		return fmt.Errorf("bpf is none of the kernel's security modules %s", modules)
	}
	sysfs, err := refuseSysfs()
	for name, instructions := range map[string]asm.Instructions{
		"socket_create": refuseFamilies(), "kernel_module_request": refuseFileSystems(), "file_open": sysfs,
	} {
		if len(instructions) > 0 {
			err = errors.Join(err, attachLSM(cgroup, name, instructions))
		}
	}
	return err
}

// attachLSM has a hook of the kernel's security modules ask a program.
func attachLSM(cgroup *os.File, name string, instructions asm.Instructions) error {
	program, err := loadLSM(name, instructions)
	if err != nil {
		return err
	}
	defer program.Close()
	if err := attachProgram(cgroup, program, ebpf.AttachLSMCgroup); err != nil { // as on arm64 before Linux 6.4
		return fmt.Errorf("attach a program to the kernel's hook %s: %w", name, err)
	}
	return nil
}

// CheckGuard says whether this kernel asks programs what a control group does: Linux 6.0,
// on arm64 6.4, with the security module bpf. It tries that on a group of its own.
func CheckGuard() (err error) {
	path, err := os.MkdirTemp("/sys/fs/cgroup", "nspawn-runner-doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	cgroup, err := os.Open(path)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	return attachGuard(cgroup)
}

// loadLSM loads a program that a hook of the kernel's security modules is to ask for
// one control group. cilium/ebpf knows those only that are for all processes.
func loadLSM(name string, program asm.Instructions) (*ebpf.Program, error) {
	function, err := kernelFunction("bpf_lsm_" + name)
	if err != nil {
		return nil, fmt.Errorf("find the kernel's hook %s: %w", name, err)
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
		expectedAttachType: unix.BPF_LSM_CGROUP, attachTo: uint32(function),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&arguments)), unsafe.Sizeof(arguments))
	if errno != 0 {
		return nil, fmt.Errorf("load a program for the kernel's hook %s: %w", name, errno)
	}
	return ebpf.NewProgramFromFD(int(fd))
}

// kernelTypes is what the kernel says of itself. To read it takes 15 ms, so that is done
// once. It is for one goroutine.
var kernelTypes = sync.OnceValues(btf.LoadKernelSpec)

// kernelFunction is the number of a function in what the kernel says of itself.
func kernelFunction(name string) (btf.TypeID, error) {
	kernel, err := kernelTypes()
	if err != nil {
		return 0, err
	}
	var function *btf.Func
	if err := kernel.TypeByName(name, &function); err != nil {
		return 0, err
	}
	return kernel.TypeID(function)
}

func byteOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}
