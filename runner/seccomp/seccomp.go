// Package seccomp puts together filters of system calls: seccomp(2). A filter is a
// program of the classic BPF over struct seccomp_data (linux/seccomp.h).
package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where things are in struct seccomp_data.
const (
	Number = 0
	Arch   = 4
)

// Argument is where the lower 32 bits of an argument are, the first of which is 0.
func Argument(n uint32) uint32 {
	at := 16 + 8*n
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 { // the other end comes first
		at += 4
	}
	return at
}

// auditArch is how the kernel calls processors, as Go does: linux/audit.h.
var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64,
	"riscv64": unix.AUDIT_ARCH_RISCV64, "ppc64le": unix.AUDIT_ARCH_PPC64LE, "s390x": unix.AUDIT_ARCH_S390X,
}

// ThisArch is what Arch holds in programs for the same processor as this one. Those
// of another kind have other numbers for the same calls.
func ThisArch() uint32 { return auditArch[runtime.GOARCH] }

// Load loads 32 bits.
func Load(at uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
}

// IfEqual skips the next then steps if the loaded word equals value, else the next
// otherwise steps.
func IfEqual(value uint32, then, otherwise uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: then, Jf: otherwise}
}

// Allow lets the call be made.
func Allow() unix.SockFilter { return end(unix.SECCOMP_RET_ALLOW) }

// Fail makes it fail with an error, and not be made; 0 is a success that did nothing.
func Fail(with unix.Errno) unix.SockFilter { return end(unix.SECCOMP_RET_ERRNO | uint32(with)) }

func end(with uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: with}
}

// Set puts a filter on this thread, and on what it starts or executes, for good.
func Set(filter []unix.SockFilter) error { return set(filter, 0) }

// SetAll is Set for all threads of this process. They must not be able to gain privileges:
// PR_SET_NO_NEW_PRIVS(2const).
func SetAll(filter []unix.SockFilter) error { return set(filter, unix.SECCOMP_FILTER_FLAG_TSYNC) }

func set(filter []unix.SockFilter, flags uintptr) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// With the flag, the result is a thread that cannot have it.
	if thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("set a filter of system calls: %w", errno)
	} else if thread != 0 {
		return fmt.Errorf("set a filter of system calls: thread %d cannot have it", thread)
	}
	return nil
}
