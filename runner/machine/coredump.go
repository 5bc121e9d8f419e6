package machine

import (
	"math"
	"os"
	"strings"
)

// A job may ask for core dumps with `ulimit -c unlimited`, if the kernel writes them into the machine:
// core(5).

// coreLimit returns the hard limit for core dumps of a machine's processes.
func coreLimit() uint64 {
	if HaveCoreDumps() {
		return math.MaxUint64
	}
	return 0
}

// HaveCoreDumps says whether machines may have core dumps on this host, with its settings of now.
func HaveCoreDumps() bool {
	return coresStay(sysctl("kernel/core_pattern"), sysctl("fs/suid_dumpable"))
}

// coresStay says whether core dumps of machines stay in the machines. A program or a socket in the pattern,
// such as systemd-coredump, takes them to the host. With an absolute path and suid_dumpable=2, the kernel
// writes those of setuid programs below the host's root directory, as the host's root user.
func coresStay(pattern, suidDumpable string) bool {
	if pattern == "" || strings.ContainsAny(pattern[:1], "|@") {
		return false
	}
	return pattern[0] != '/' || suidDumpable != "2"
}

// sysctl returns a setting of the kernel, or "".
func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
