package guard

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// kernelTypes returns the kernel's types (BTF). Reading them takes 15 ms, so it is done once. The result is for one
// goroutine.
var kernelTypes = sync.OnceValues(btf.LoadKernelSpec)

// kernelFunction returns the number of a function in the kernel's types.
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

// allow returns the end of a program that allows the operation.
func allow() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 1).WithSymbol("allow"), asm.Return()}
}

func byteOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// kernelMember returns the offset of a member in a struct of this kernel, in bytes.
func kernelMember(of, name string) (int16, error) {
	kernel, err := kernelTypes()
	if err != nil {
		return 0, err
	}
	var structure *btf.Struct
	if err := kernel.TypeByName(of, &structure); err != nil {
		return 0, fmt.Errorf("struct %s: %w", of, err)
	}
	for _, member := range structure.Members {
		if member.Name == name {
			return int16(member.Offset.Bytes()), nil
		}
	}
	return 0, fmt.Errorf("struct %s of this kernel has no member %s", of, name)
}
