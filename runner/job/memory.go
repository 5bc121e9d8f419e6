package job

import "golang.org/x/sys/unix"

// ownMemory is the most that this program takes while it executes scripts: many
// times what it needs.
const ownMemory = 512 << 20

// limitOwnMemory makes this program die where it would take more. A machine's bus
// is the job's, which may have replaced it, and the D-Bus library believes any
// length of a message that wraps around in 32 bits, and any number of values in
// one: it took 4 GiB of the host's memory (seen), which no machine's limit counts.
// A death ends the stage as a system failure.
func limitOwnMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &limit); err != nil {
		return err
	}
	limit.Cur = min(limit.Max, ownMemory)
	return unix.Setrlimit(unix.RLIMIT_DATA, &limit)
}
