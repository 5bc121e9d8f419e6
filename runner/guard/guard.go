// Package guard has the kernel ask programs (BPF) before it does some things for machines,
// whichever way it is asked for them: a filter of system calls sees numbers only. They
// refuse sockets of families that no machine needs, files of a sysfs that are opened for
// writing, and modules of file systems that no machine can mount.
//
// The control group of the slice of all machines has the programs, for all of them and
// once: to attach the first program to a hook of the kernel's security modules changes the
// kernel's code at that hook, which must be seldom, and which kernels without the cure of
// CVE-2026-23319 may not survive when the last program goes meanwhile.
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

// guarded is the attribute of the slice's control group that says which programs it has;
// it goes when the group does. guardFormat counts what they are, as a test sees to: a group
// with others gets those of this driver in their place.
const (
	guarded     = "trusted.nspawn_runner.guard"
	guardFormat = "1"
)

// ErrNone is the error of a kernel that asks no programs at all.
var ErrNone = errors.New("the kernel's security module bpf is off")

// Slice attaches the programs to a slice, unless it has them: each that this kernel takes,
// of which not every one takes all (Check). group is the directory of its control group.
func Slice(group string) error {
	if IsGuarded(group) {
		return nil
	}
	if err := attachAll(group); err != nil {
		return err
	}
	return unix.Setxattr(group, guarded, []byte(guardFormat), 0)
}

// IsGuarded says whether a control group has this driver's programs.
func IsGuarded(group string) bool {
	format := make([]byte, len(guardFormat)+1)
	n, err := unix.Getxattr(group, guarded, format)
	return err == nil && string(format[:n]) == guardFormat
}

// attachAll attaches the programs to a control group. A kernel that takes none is not
// asked for its types, which takes 15 ms.
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

// Exempt attaches programs that allow all to the control group of a machine, where they
// take the place of the slice's.
func Exempt(service *os.File) (err error) {
	for _, hook := range []string{"file_open", "socket_create", "kernel_module_request"} {
		err = errors.Join(err, attachLSM(service, hook, allow()))
	}
	return err
}

// attachLSM has a hook of the kernel's security modules ask a program, in place of another
// that the control group has, or one above it.
func attachLSM(group *os.File, hook string, instructions asm.Instructions) error {
	program, err := loadLSM(hook, instructions)
	if err != nil {
		return err
	}
	defer program.Close()
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(group.Fd()), Program: program, Attach: ebpf.AttachLSMCgroup, Flags: unix.BPF_F_ALLOW_OVERRIDE,
	})
	if err != nil { // as on arm64 before Linux 6.4
		return fmt.Errorf("attach a program to the kernel's hook %s: %w", hook, err)
	}
	return nil
}

// Check says whether this kernel asks programs what a control group does: Linux 6.0, on
// arm64 6.4, with the security module bpf. It tries that on a group of its own, unless the
// slice with this control group is guarded already.
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
