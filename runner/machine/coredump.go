package machine

import (
	"math"
	"os"
	"strings"
)

// A core dump is for the job to have: where the kernel writes it into the machine, a job
// may ask for one, with `ulimit -c unlimited`. core(5) says where it goes.

// coreLimit is the hard limit of core dumps of a machine's processes.
func coreLimit() uint64 {
	if HaveCoreDumps() {
		return math.MaxUint64
	}
	return 0
}

// HaveCoreDumps says whether machines may have core dumps on this host as it is now.
func HaveCoreDumps() bool {
	return coresStay(sysctl("kernel/core_pattern"), sysctl("fs/suid_dumpable"))
}

// coresStay says whether core dumps of machines are written into these. A program, or
// who listens at a socket, keeps them on the host, as systemd-coredump does. With an
// absolute path and suid_dumpable=2 the kernel writes those of setuid programs below the
// host's root, as the host's root.
func coresStay(pattern, suidDumpable string) bool {
	if pattern == "" || strings.ContainsAny(pattern[:1], "|@") {
		return false
	}
	return pattern[0] != '/' || suidDumpable != "2"
}

// sysctl reads a setting of the kernel, "" if it cannot.
func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
