package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// refusals are settings with which a kernel makes no user namespaces for ordinary users, also in
// machines, and their values then. Both are patches: Debian's and Ubuntu's.
var refusals = []struct{ sysctl, refuses, allows string }{
	{"kernel.unprivileged_userns_clone", "0", "1"},
	{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
}

func (d Doctor) checkUserNamespaces(ctx context.Context) []Finding {
	return append(d.checkIdmap(ctx), checkRefusals("/proc/sys")...)
}

// checkRefusals asks whether ordinary users in machines can make user namespaces. Machines
// themselves do not need that: root makes theirs.
func checkRefusals(sysctls string) (all []Finding) {
	for _, r := range refusals {
		value, _ := os.ReadFile(filepath.Join(sysctls, strings.ReplaceAll(r.sysctl, ".", "/"))) // most kernels lack one
		if strings.TrimSpace(string(value)) == r.refuses {
			all = append(all, isWarning("set "+r.sysctl+" = "+r.allows+" in a file of /etc/sysctl.d, and run 'sysctl --system'",
				"%s is %s: podman, bubblewrap, mmdebstrap and sbuild fail in jobs for users other than root", r.sysctl, r.refuses)...)
		}
	}
	return all
}
