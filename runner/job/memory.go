package job

import "golang.org/x/sys/unix"

// ownMemory is how much memory this program may take while it executes scripts, in bytes. It is many
// times what it needs.
const ownMemory = 512 << 20

// limitOwnMemory makes the kernel refuse more memory than ownMemory, which ends this program. The
// stage is then a system failure. A job can replace the bus of its machine. The D-Bus library trusts
// the length of a message, also one that overflows 32 bits, and the number of its values: it took
// 4 GiB of the host's memory (seen), which no machine's limit counts.
func limitOwnMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &limit); err != nil {
		return err
	}
	limit.Cur = min(limit.Max, ownMemory)
	return unix.Setrlimit(unix.RLIMIT_DATA, &limit)
}
