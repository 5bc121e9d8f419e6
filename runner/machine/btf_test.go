package machine

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestAFunctionOfTheKernelHasTheNumberThatOthersFind(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip("this kernel does not describe itself: ", err)
	}
	for _, name := range []string{"tcp_v4_connect", "security_socket_create"} {
		var function *btf.Func
		if err := kernel.TypeByName(name, &function); err != nil {
			t.Fatal(err)
		}
		want, err := kernel.TypeID(function)
		if got, ourErr := kernelFunction(name); err != nil || ourErr != nil || got != uint32(want) {
			t.Errorf("%s: %d, %v, not %d, %v", name, got, ourErr, want, err)
		}
	}
	if _, err := kernelFunction("no_such_function"); err == nil {
		t.Error("no such function, no error")
	}
}
