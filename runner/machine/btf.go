package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
)

const vmlinuxFile = "/sys/kernel/btf/vmlinux"

var vmlinux = sync.OnceValues(func() ([]byte, error) { return os.ReadFile(vmlinuxFile) })

// kernelFunction is the number of a function in the kernel's description of itself
// (bpf/btf.rst in its documentation). To read all of that takes cilium/ebpf a tenth of
// a machine's start; this looks for the one thing.
func kernelFunction(name string) (uint32, error) {
	const function = 12
	data, err := vmlinux()
	if err != nil {
		return 0, fmt.Errorf("the kernel does not describe itself: %w", err)
	}
	number := func(at uint32) uint32 { return binary.NativeEndian.Uint32(data[at:]) }
	start, names := number(4)+number(8), number(4)+number(16)
	called := uint32(bytes.Index(data[names:], []byte("\x00"+name+"\x00")) + 1)
	id := uint32(1)
	for at, end := start, start+number(12); at < end && called > 0; id++ {
		kind, members := number(at+4)>>24&31, number(at+4)&0xffff
		if kind == function && number(at) == called {
			return id, nil
		}
		at += 12 + btfOnce[kind] + btfEach[kind]*members
	}
	return 0, fmt.Errorf("%s has no function %s", vmlinuxFile, name)
}

// How many bytes of a type follow the first twelve, by its kind: so many, and so many
// for each of its members.
var (
	btfOnce = [32]uint32{1: 4, 3: 12, 14: 4, 17: 4}
	btfEach = [32]uint32{4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
)
