package storage

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
)

// Where kernel.yama.ptrace_scope is 3, nobody traces anything.
func TestIdmappedMountsAreMadeWithoutTracing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with its filter
		failed <- func() error {
			if err := seccomp.Set([]unix.SockFilter{
				seccomp.Load(seccomp.Number),
				seccomp.IfEqual(unix.SYS_PTRACE, 0, 1),
				seccomp.Fail(unix.EPERM),
				seccomp.Allow(),
			}); err != nil {
				return err
			}
			return CheckIdmap(dir)
		}()
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func BenchmarkUserNamespace(b *testing.B) {
	for b.Loop() {
		namespace, err := userNamespace(1 << 20)
		if err != nil {
			b.Fatal(err)
		}
		namespace.Close()
	}
}
