package machine

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
)

func TestOfKeyringsAMachineHasThoseOfSessions(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("where arguments are below is as on an amd64")
	}
	var program []bpf.Instruction
	for _, step := range seccomp.Instead([]seccomp.Call{seccomp.Keyctl}, keyrings()...) {
		program = append(program, bpf.RawInstruction{Op: step.Code, Jt: step.Jt, Jf: step.Jf, K: step.K}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	const allowed, refused, pretended = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO
	for _, test := range []struct {
		what            string
		operation, with int32
		want            uint32
	}{
		{"join a session's", keyctlJoinSessionKeyring, -1, allowed},
		{"describe one by its number", keyctlDescribe, 1000, allowed},
		{"set who may what with it", keyctlSetPermissions, 1000, allowed},
		{"describe the user's, which would make it", keyctlDescribe, -4, refused},
		{"read the session's by what it is", keyctlRead, -3, refused},
		{"link the user's to a session's", keyctlLink, -4, pretended},
		{"link another one", keyctlLink, 1000, refused},
		{"ask for the user's", 0, -4, refused},
		{"instantiate a key", 12, 1000, refused},
	} {
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[seccomp.Number:], unix.SYS_KEYCTL)
		binary.BigEndian.PutUint32(data[seccomp.Arch:], seccomp.ThisArch())
		binary.BigEndian.PutUint32(data[seccomp.Argument(0):], uint32(test.operation))
		binary.BigEndian.PutUint32(data[seccomp.Argument(1):], uint32(test.with))
		if got, err := vm.Run(data); err != nil || uint32(got) != test.want {
			t.Errorf("%s: %#x, %v, want %#x", test.what, got, err, test.want)
		}
	}
}
