// Package guard attaches security programs (BPF) to the kernel's hooks for machines. They refuse sockets of address
// families that no machine needs, files of a sysfs that are opened for writing, and modules of file systems that no
// machine can mount. They hold whichever way a process takes; a filter of system calls sees only numbers.
//
// The programs are attached once, to the control group of the slice of all machines. The first program on a hook of
// the security modules patches the kernel's code at that hook, which must happen rarely. Kernels without the fix for
// CVE-2026-23319 may crash if the last program is removed at the same time.
package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// guarded is an extended attribute of the slice's control group: the version of its programs. It is removed with the
// group. guardFormat is the version of this build's programs, which a test checks. They replace programs of another
// version.
const (
	guarded     = "trusted.nspawn_runner.guard"
	guardFormat = "1"
)

// ErrNone is the error for a kernel that does not support such programs.
var ErrNone = errors.New("the kernel's security module bpf is off")

// Slice attaches the programs to a slice, unless it has them. group is the directory of its control group. A kernel
// may refuse some of them: see Check.
func Slice(group string) error {
	if IsGuarded(group) {
		return nil
	}
	if err := attachAll(group); err != nil {
		return err
	}
	return unix.Setxattr(group, guarded, []byte(guardFormat), 0)
}

// IsGuarded says whether a control group has the programs of this build.
func IsGuarded(group string) bool {
	format := make([]byte, len(guardFormat)+1)
	n, err := unix.Getxattr(group, guarded, format)
	return err == nil && string(format[:n]) == guardFormat
}

// attachAll attaches the programs to a control group. It first looks whether the kernel supports them, because
// loading the kernel's types takes 15 ms.
func attachAll(path string) error {
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	if !slices.Contains(strings.Split(strings.TrimSpace(string(modules)), ","), "bpf") {
		return fmt.Errorf("%w: active are %s", ErrNone, bytes.TrimSpace(modules))
	}
	group, err := os.Open(path)
	if err != nil {
		return err
	}
	defer group.Close()
	sysfs, err := refuseSysfs(kernelMember)
	if err == nil {
		err = attachLSM(group, "file_open", sysfs)
	}
	return errors.Join(err,
		attachLSM(group, "socket_create", refuseFamilies()),
		attachLSM(group, "kernel_module_request", refuseFileSystems()))
}

// Exempt attaches programs that allow everything to the control group of a machine. They replace those of the slice
// there.
func Exempt(service *os.File) (err error) {
	for _, hook := range []string{"file_open", "socket_create", "kernel_module_request"} {
		err = errors.Join(err, attachLSM(service, hook, allow()))
	}
	return err
}

// attachLSM attaches a program to a hook of the security modules, for a control group. It replaces the program of
// this group, or of a group above it.
func attachLSM(group *os.File, hook string, instructions asm.Instructions) error {
	program, err := loadLSM(hook, instructions)
	if err != nil {
		return err
	}
	defer program.Close()
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(group.Fd()), Program: program, Attach: ebpf.AttachLSMCgroup, Flags: unix.BPF_F_ALLOW_OVERRIDE,
	})
	if err != nil { // such as on arm64 before Linux 6.4
		return fmt.Errorf("attach a program to the kernel's hook %s: %w", hook, err)
	}
	return nil
}

// Check returns an error if this kernel does not support the programs. They need Linux 6.0, or 6.4 on arm64, with the
// security module bpf. If the slice does not have the programs yet, Check tries them on a control group of its own.
func Check(slice string) (err error) {
	if IsGuarded(slice) {
		return nil
	}
	path, err := os.MkdirTemp("/sys/fs/cgroup", "nspawn-runner-doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	return attachAll(path)
}

// loadLSM loads a program for a hook of the security modules and one control group. cilium/ebpf can load only programs
// for all processes.
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
