package unpack

import (
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
)

// made are the system calls of this process: those that write trees, and those of Go's runtime. package seccomp adds
// those that make threads.
var made = []uint32{
	// files
	unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_WRITE, unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_LSEEK, unix.SYS_FCNTL,
	unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_GETDENTS64,
	unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_UNLINKAT,
	unix.SYS_FCHOWNAT, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_LSETXATTR,
	// memory
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	// waiting
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	// signals, with which the runtime interrupts its own threads
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_TGKILL, unix.SYS_RESTART_SYSCALL,
	// threads
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
	// others
	unix.SYS_CLOCK_GETTIME, unix.SYS_GETRANDOM, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

// filterCalls allows the process only the system calls that it needs: no namespaces, in which it would have all
// capabilities again, no sockets, and no keyrings.
func filterCalls() error { return seccomp.SetAll(seccomp.Only(made)) }
