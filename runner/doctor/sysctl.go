package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Sysctls is a file for sysctl.d(5) that sets the shared limits of the kernel to what the
// doctor advises. A setting that a kernel does not have is not an error (the "-").
func Sysctls() string {
	var out strings.Builder
	out.WriteString("# What nspawn-runner needs of the kernel. A file in /etc/sysctl.d/ overrides it.\n")
	for _, limit := range sharedLimits {
		fmt.Fprintf(&out, "\n# %s.\n", strings.ToUpper(limit.meaning[:1])+limit.meaning[1:])
		for _, name := range limit.names() {
			fmt.Fprintf(&out, "-%s = %d\n", name, limit.enough)
		}
	}
	return out.String()
}

// names are the settings that the limit stands for. Not every program that reads such
// files knows patterns.
func (l sharedLimit) names() []string {
	before, after, pattern := strings.Cut(l.sysctl, "*")
	if !pattern {
		return []string{l.sysctl}
	}
	names := slices.Clone(namespaces)
	for i, n := range names {
		names[i] = before + n + after
	}
	return names
}

// namespaces are those of the kernel that are counted: /proc/sys/user, namespaces(7).
var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
