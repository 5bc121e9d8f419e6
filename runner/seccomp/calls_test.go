package seccomp

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// outcome is what a filter says to a call.
func outcome(t *testing.T, filter []unix.SockFilter, arch, number uint32, first ...uint32) uint32 {
	t.Helper()
	var program []bpf.Instruction
	for _, step := range filter {
		program = append(program, bpf.RawInstruction{Op: step.Code, Jt: step.Jt, Jf: step.Jf, K: step.K}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	// That machine reads what comes from a network.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[Number:], number)
	binary.BigEndian.PutUint32(data[Arch:], arch)
	for _, argument := range first {
		binary.BigEndian.PutUint32(data[Argument(0):], argument)
	}
	result, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(result)
}

func TestAFilterKnowsACallByEachOfItsNumbers(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers below are those of an amd64")
	}
	filter := Instead(Syncs, Fail(unix.EIO))
	for _, test := range []struct {
		what         string
		arch, number uint32
		refused      bool
	}{
		{"fsync", unix.AUDIT_ARCH_X86_64, 74, true},
		{"sync_file_range, the last one", unix.AUDIT_ARCH_X86_64, 277, true},
		{"sync of x32", unix.AUDIT_ARCH_X86_64, 0x40000000 + 162, true},
		{"sync of an i386", unix.AUDIT_ARCH_I386, 36, true},
		{"syncfs of an i386", unix.AUDIT_ARCH_I386, 344, true},
		{"another call", unix.AUDIT_ARCH_X86_64, 36, false},
		{"fsync's number in an i386", unix.AUDIT_ARCH_I386, 74, false},
		{"a processor of another kind", unix.AUDIT_ARCH_AARCH64, 74, false},
	} {
		want := uint32(unix.SECCOMP_RET_ALLOW)
		if test.refused {
			want = unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)
		}
		if got := outcome(t, filter, test.arch, test.number); got != want {
			t.Errorf("%s: %#x, want %#x", test.what, got, want)
		}
	}
}

func TestAFilterOfWhatIsNeededRefusesAllElse(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers below are those of an amd64")
	}
	filter := Only([]uint32{unix.SYS_READ, unix.SYS_WRITE})
	refused := unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, test := range []struct {
		what                string
		arch, number, first uint32
		want                uint32
	}{
		{"read", unix.AUDIT_ARCH_X86_64, unix.SYS_READ, 0, unix.SECCOMP_RET_ALLOW},
		{"write, the last one", unix.AUDIT_ARCH_X86_64, unix.SYS_WRITE, 0, unix.SECCOMP_RET_ALLOW},
		{"a socket", unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET, 0, refused},
		{"namespaces", unix.AUDIT_ARCH_X86_64, unix.SYS_UNSHARE, 0, refused},
		{"write of x32", unix.AUDIT_ARCH_X86_64, x32 + unix.SYS_WRITE, 0, refused},
		{"read's number in an i386", unix.AUDIT_ARCH_I386, unix.SYS_READ, 0, refused},
		{"a thread", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD, unix.SECCOMP_RET_ALLOW},
		{"a process", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE, unix.CLONE_VM, refused},
		{"a process in a user namespace", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE, unix.CLONE_NEWUSER, refused},
		{"clone3", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE3, 0, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
	} {
		if got := outcome(t, filter, test.arch, test.number, test.first); got != test.want {
			t.Errorf("%s: %#x, want %#x", test.what, got, test.want)
		}
	}
}
