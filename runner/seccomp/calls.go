package seccomp

import (
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Call is a system call. Programs of an i386 and of an ARM with 32 bits, which an amd64
// and an arm64 execute too, have numbers of their own: the kernel's
// arch/x86/entry/syscalls/syscall_32.tbl and arch/arm/tools/syscall.tbl.
type Call struct{ number, i386, arm uint32 }

// Keyrings are the calls that make, find and change keys and keyrings: keyrings(7).
var Keyrings = []Call{{unix.SYS_ADD_KEY, 286, 309}, {unix.SYS_REQUEST_KEY, 287, 310}, {unix.SYS_KEYCTL, 288, 311}}

// Sync is sync(2), which waits for all disks of the host.
var Sync = Call{unix.SYS_SYNC, 36, 36}

// Syncfs is syncfs(2), which waits for all of one file system.
var Syncfs = Call{unix.SYS_SYNCFS, 344, 373}

// Syncs are all calls that do nothing but wait for disks.
var Syncs = []Call{
	Sync, Syncfs,
	{unix.SYS_FSYNC, 118, 118}, {unix.SYS_FDATASYNC, 148, 148}, {unix.SYS_MSYNC, 144, 144},
	{unix.SYS_SYNC_FILE_RANGE, 314, 341},
}

// x32 marks a call of x86-64's other ABI, which otherwise has its numbers.
const x32 = 0x40000000

// other is what Arch holds in programs of the 32 bits that this processor executes too.
var other = map[string]uint32{"amd64": unix.AUDIT_ARCH_I386, "arm64": unix.AUDIT_ARCH_ARM}[runtime.GOARCH]

// Instead is a filter by which some calls are decided upon by steps that end each. All
// others are made, and so are those of programs for processors that this one does not
// execute by itself.
func Instead(calls []Call, steps ...unix.SockFilter) []unix.SockFilter {
	native := []unix.SockFilter{Load(Number), {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ^uint32(x32)}}
	compat := []unix.SockFilter{Load(Arch), IfEqual(other, 1, 0), Allow(), Load(Number)}
	for _, call := range calls {
		native = append(append(native, IfEqual(call.number, 0, uint8(len(steps)))), steps...)
		number := call.i386
		if runtime.GOARCH == "arm64" {
			number = call.arm
		}
		compat = append(append(compat, IfEqual(number, 0, uint8(len(steps)))), steps...)
	}
	native, compat = append(native, Allow()), append(compat, Allow())
	return slices.Concat([]unix.SockFilter{Load(Arch), IfEqual(ThisArch(), 1, 0), skip(len(native))}, native, compat)
}

// skip goes on so many steps later.
func skip(steps int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(steps)}
}

// Only returns a filter that allows some system calls and no others. calls are their numbers on this
// processor; calls of programs for another processor are refused. The process may make threads, but
// no other processes. A refused call fails with EPERM. clone3(2) fails with ENOSYS, because no filter
// sees its flags: then programs use clone(2).
func Only(calls []uint32) []unix.SockFilter {
	flags := uint32(0)
	if runtime.GOARCH == "s390x" { // clone(2), "C library/kernel differences"
		flags = 1
	}
	filter := []unix.SockFilter{
		Load(Arch), IfEqual(ThisArch(), 1, 0), Fail(unix.EPERM), Load(Number),
		IfEqual(unix.SYS_CLONE3, 0, 1), Fail(unix.ENOSYS),
		IfEqual(unix.SYS_CLONE, 0, 4), Load(Argument(flags)),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_THREAD, Jf: 1}, Allow(), Fail(unix.EPERM),
	}
	for _, call := range calls {
		filter = append(filter, IfEqual(call, 0, 1), Allow())
	}
	return append(filter, Fail(unix.EPERM))
}
