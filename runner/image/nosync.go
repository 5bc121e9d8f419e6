package image

import (
	"runtime"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
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

// suppressSync gives this thread, and what it starts, a filter of system calls.
// Programs of another processor's kind are not filtered: the same numbers mean
// something else to them.
func suppressSync() error {
	filter := []unix.SockFilter{
		seccomp.Load(seccomp.Arch), seccomp.IfEqual(seccomp.ThisArch(), 1, 0), seccomp.Allow(),
		seccomp.Load(seccomp.Number),
	}
	for _, call := range syncs {
		filter = append(filter, seccomp.IfEqual(call, 0, 1), seccomp.Fail(0))
	}
	return seccomp.Set(append(filter, seccomp.Allow()))
}
