package image

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withoutSync does something on a thread of its own, where fsync(2) and its kin
// succeed and do nothing, also for the programs that it starts. What a bootstrap
// writes is flushed once, before it is published; eatmydata ends at its chroot(2),
// for there is no libeatmydata inside. Where the kernel does not let us, it is
// done all the same, and takes longer.
func withoutSync(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		_ = suppressSync()
		done <- do()
	}()
	return <-done
}

// syncs are the system calls that do nothing but wait for the disk.
var syncs = []uint32{unix.SYS_SYNC, unix.SYS_SYNCFS, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_MSYNC}

// auditArch is how the kernel calls processors, as Go does: linux/audit.h.
var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64,
	"riscv64": unix.AUDIT_ARCH_RISCV64, "ppc64le": unix.AUDIT_ARCH_PPC64LE, "s390x": unix.AUDIT_ARCH_S390X,
}

// suppressSync gives this thread, and what it starts, a filter of system calls:
// seccomp(2). Programs of another processor's kind are not filtered: the same
// numbers mean something else to them.
func suppressSync() error {
	// Where things are in struct seccomp_data (linux/seccomp.h).
	const number, arch = 0, 4
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	end := func(with uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: with} }
	ifEqual := func(value uint32, then, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: then, Jf: otherwise}
	}

	filter := []unix.SockFilter{load(arch), ifEqual(auditArch[runtime.GOARCH], 1, 0), end(unix.SECCOMP_RET_ALLOW), load(number)}
	for _, call := range syncs {
		filter = append(filter, ifEqual(call, 0, 1), end(unix.SECCOMP_RET_ERRNO)) // error 0 is success
	}
	filter = append(filter, end(unix.SECCOMP_RET_ALLOW))
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return nil
}
