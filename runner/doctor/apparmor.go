package doctor

import (
	"context"
	"strings"
	"time"

	"nspawn-runner/runner/age"
	"nspawn-runner/runner/apparmor"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/network"
)

// checkAppArmor asks whether the profiles of the host apply in machines and builds, whether one
// confines pasta, and what that denied since the host has booted. The profiles of Debian's
// packages deny nothing that machines need.
func checkAppArmor(context.Context) []Finding {
	if !apparmor.Enabled() {
		return isGood("the kernel does not use it")
	}
	var inside []Finding
	if _, err := apparmor.Outside(); err != nil {
		inside = isWarning("", "profiles of the host apply in machines and builds, to programs with the same path: %v", err)
	}
	return append(inside, checkPastaProfile()...)
}

// checkPastaProfile asks about the profile of pasta, which is the host's program.
func checkPastaProfile() []Finding {
	profiles, err := apparmor.Profiles(network.PastaProfiles...)
	if err != nil {
		return isWarning("mount securityfs on /sys/kernel/security", "%v", err)
	}
	denied, err := apparmor.Denied(network.PastaProfiles...)
	if err != nil {
		return isWarning("", "%v", err)
	}
	if len(denied) > 0 {
		last := denied[len(denied)-1]
		profile, _, _ := strings.Cut(last.Profile, "//")
		return isWarning("correct /etc/apparmor.d/usr.bin."+profile+" and reload it with 'apparmor_parser --replace'; 'apparmor_parser --remove' turns it off until the next boot",
			"machines with a private network may have none: %s of pasta, %s", last, age.Ago(time.Now().Add(last.Uptime-host.Uptime())))
	}
	if len(profiles) == 0 {
		return isGood("no profile confines pasta")
	}
	return isGood("pasta runs with %s", strings.Join(profiles, ", "))
}
