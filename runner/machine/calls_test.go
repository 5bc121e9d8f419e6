package machine

import (
	"encoding/binary"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
	"nspawn-runner/runner/storage"
)

func TestAMachineIsToldThatTheKernelHasNoKeyrings(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers below are those of an amd64")
	}
	var program []bpf.Instruction
	for _, step := range noKeyrings() {
		program = append(program, bpf.RawInstruction{Op: step.Code, Jt: step.Jt, Jf: step.Jf, K: step.K}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	const allowed, missing = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for _, test := range []struct {
		what               string
		arch, number, want uint32
	}{
		{"keyctl", unix.AUDIT_ARCH_X86_64, 250, missing},
		{"keyctl of x32", unix.AUDIT_ARCH_X86_64, 0x40000000 + 250, missing},
		{"keyctl of an i386", unix.AUDIT_ARCH_I386, 288, missing},
		{"another call", unix.AUDIT_ARCH_X86_64, 288, allowed},
	} {
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[seccomp.Number:], test.number)
		binary.BigEndian.PutUint32(data[seccomp.Arch:], test.arch)
		if got, err := vm.Run(data); err != nil || uint32(got) != test.want {
			t.Errorf("%s: %#x, %v, want %#x", test.what, got, err, test.want)
		}
	}
}

func TestAMachineWritesNoOthersFilesToTheDisk(t *testing.T) {
	for backend, more := range map[string]int{"overlay": 0, "tmpfs": 0, "btrfs": 4, "in-place": 4} {
		named, err := storage.Named(backend)
		if err != nil {
			t.Fatal(err)
		}
		calls := idleCalls(named)
		if !slices.Contains(calls, seccomp.Sync) || !slices.Contains(calls, seccomp.Syncfs) || len(calls) != 2+more {
			t.Errorf("%s: %v", backend, calls)
		}
	}
}
