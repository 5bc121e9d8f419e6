package machine

import (
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
)

// moreCalls are the system calls that a machine can make besides those of
// systemd-nspawn's list, as systemd.exec(5) names them. What is locked in memory counts to
// the machine's limit, and RLIMIT_MEMLOCK holds. systemd-nspawn of Debian 12 does not know
// Landlock.
const moreCalls = "@memlock landlock_create_ruleset landlock_add_rule landlock_restrict_self"

// callsOption is systemd-nspawn's option for what a machine can call.
func callsOption(record Record) string {
	const option = "--system-call-filter="
	switch {
	case record.Privileged:
		return option + "@known"
	case record.NoNesting:
		return option + moreCalls
	}
	return option + moreCalls + " keyctl" // some of it: see keyrings
}

// filterCalls sets what systemd-nspawn's list cannot say, for systemd-nspawn and all of
// the machine.
func filterCalls(record Record) error {
	calls := seccomp.Syncs
	if record.Backend == "overlay" || record.Backend == "tmpfs" {
		calls = []seccomp.Call{seccomp.Sync} // their roots wait for no disk
	}
	if err := seccomp.Set(seccomp.Instead(calls, seccomp.Fail(0))); err != nil {
		return err
	}
	if record.Privileged {
		return nil
	}
	return seccomp.Set(seccomp.Instead([]seccomp.Call{seccomp.Keyctl}, keyrings()...))
}

// What keyctl(2) does, and the keyring of a user id: linux/keyctl.h.
const (
	keyctlJoinSessionKeyring = 1
	keyctlRevoke             = 3
	keyctlSetPermissions     = 5
	keyctlDescribe           = 6
	keyctlClear              = 7
	keyctlLink               = 8
	keyctlRead               = 11

	userKeyring = 1<<32 - 4
)

// keyrings lets a process have a session keyring, which programs that start containers
// give each: one for a process, so that they are as many as its processes. Keys, and
// keyrings that stay, count to nobody's memory, but to a user id's 200 (keyrings(7)), of
// which a machine has a million. Keyrings that are named by what they are, and not by
// their number, are made where they are missing. To link that of the user into a session's,
// without which systemd starts no mount unit, and PAM complains, seems to succeed.
func keyrings() []unix.SockFilter {
	operation, first := seccomp.Load(seccomp.Argument(0)), seccomp.Load(seccomp.Argument(1))
	steps := []unix.SockFilter{
		operation, seccomp.IfEqual(keyctlJoinSessionKeyring, 0, 1), seccomp.Allow(),
		seccomp.IfEqual(keyctlLink, 0, 4), first, seccomp.IfEqual(userKeyring, 0, 1), seccomp.Fail(0), seccomp.Fail(unix.EPERM),
	}
	known := []uint32{keyctlRevoke, keyctlSetPermissions, keyctlDescribe, keyctlClear, keyctlRead}
	for i, number := range known {
		steps = append(steps, seccomp.IfEqual(number, uint8(len(known)-i), 0))
	}
	return append(steps,
		seccomp.Fail(unix.EPERM),
		first, seccomp.IfSet(1<<31, 1, 0), // negative
		seccomp.Allow(), seccomp.Fail(unix.EPERM),
	)
}
