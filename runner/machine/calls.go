package machine

import (
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/seccomp"
	"nspawn-runner/runner/storage"
)

// moreCalls are system calls that a machine may make besides those of systemd-nspawn's list, with the names of
// systemd.exec(5). Locked memory counts to the machine's limit, and RLIMIT_MEMLOCK holds. systemd-nspawn of
// Debian 12 does not know Landlock.
const moreCalls = "@memlock landlock_create_ruleset landlock_add_rule landlock_restrict_self"

// callsOption returns the option of systemd-nspawn for the system calls of a machine.
func callsOption(record Record) string {
	const option = "--system-call-filter="
	if record.Privileged {
		return option + "@known"
	}
	return option + moreCalls + " keyctl" // filterCalls answers keyctl
}

// filterCalls sets the filters that systemd-nspawn's list cannot express, for systemd-nspawn and the whole
// machine.
func filterCalls(record Record, backend storage.Backend) error {
	if err := seccomp.Set(seccomp.Instead(idleCalls(backend), seccomp.Fail(0))); err != nil {
		return err
	}
	if record.Privileged {
		return nil
	}
	return seccomp.Set(noKeyrings())
}

// idleCalls returns the calls that do nothing in a machine, and succeed. An overlay does not wait for the disk
// by itself. But directories such as /var/lib/docker are on the host's file system, and syncfs(2) there would
// write all its data, also that of other jobs.
func idleCalls(backend storage.Backend) []seccomp.Call {
	if backend.Traits().Volatile {
		return []seccomp.Call{seccomp.Sync, seccomp.Syncfs}
	}
	return seccomp.Syncs
}

// noKeyrings returns a filter that reports a kernel without keyrings. systemd, PAM and programs that start
// containers then work without them, and fail if a call is refused. The memory of keyrings counts to no
// machine. Each user id may have 200 keyrings with 20 KB (keyrings(7)), and a machine has a million ids: each
// open file keeps the session keyring of the process that opened it. systemd-nspawn 262 allows all three
// calls; older versions refuse add_key and request_key.
func noKeyrings() []unix.SockFilter {
	return seccomp.Instead(seccomp.Keyrings, seccomp.Fail(unix.ENOSYS))
}
