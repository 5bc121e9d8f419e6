package machine

import (
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
	"nspawn-runner/runner/storage"
)

// moreCalls are the system calls that a machine can make besides those of
// systemd-nspawn's list, as systemd.exec(5) names them. What is locked in memory counts to
// the machine's limit, and RLIMIT_MEMLOCK holds. systemd-nspawn of Debian 12 does not know
// Landlock.
const moreCalls = "@memlock landlock_create_ruleset landlock_add_rule landlock_restrict_self"

// callsOption is systemd-nspawn's option for what a machine can call.
func callsOption(record Record) string {
	const option = "--system-call-filter="
	if record.Privileged {
		return option + "@known"
	}
	return option + moreCalls + " keyctl" // which filterCalls answers
}

// filterCalls sets what systemd-nspawn's list cannot say, for systemd-nspawn and all of
// the machine.
func filterCalls(record Record, backend storage.Backend) error {
	if err := seccomp.Set(seccomp.Instead(idleCalls(backend), seccomp.Fail(0))); err != nil {
		return err
	}
	if record.Privileged {
		return nil
	}
	return seccomp.Set(noKeyrings())
}

// idleCalls are the calls that succeed and do nothing in a machine. Roots that are overlays
// wait for no disk by themselves. But beside one lie directories of the host's file system,
// /var/lib/docker and others, all of which syncfs(2) would write: what other jobs wrote too.
func idleCalls(backend storage.Backend) []seccomp.Call {
	if backend.Traits().Volatile {
		return []seccomp.Call{seccomp.Sync, seccomp.Syncfs}
	}
	return seccomp.Syncs
}

// noKeyrings answers that the kernel has no keyrings. Programs that start containers,
// systemd and PAM do without them then, where they fail if one is refused. Machines have
// none, since keyrings count to nobody's memory, but to a user id's 200 and its 20 KB
// (keyrings(7)), and a machine has a million ids: each file that is open keeps the session
// keyring of who opened it. systemd-nspawn 262 allows all three calls; older ones refuse
// add_key and request_key themselves.
func noKeyrings() []unix.SockFilter {
	return seccomp.Instead(seccomp.Keyrings, seccomp.Fail(unix.ENOSYS))
}
