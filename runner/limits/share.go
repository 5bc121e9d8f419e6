// Package limits reads what a machine has used and which of its limits it has reached. The kernel
// counts both in the control group of the machine's service, which no process in the machine can
// change. Most limits are settings of that service (runner/machine). Only the limits of what user
// namespaces count are set here.
//
// A control group is named by its path below the cgroup file system's root.
package limits

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/printable"
)

// User namespaces count instances and watches of inotify, namespaces and more
// (user_namespaces(7), /proc/sys/user). What is created in a machine's namespace counts there, and
// also for the host's root, which created the namespace. So all machines share the limits of the
// host's root. If one machine took all inotify instances, others could not boot.

// HostShare is the divisor for the part of a shared resource that one machine may take: a quarter.
const HostShare = 4

// leastOfShare is the lowest limit that a machine gets, or all that the host has: a booted system and
// some programs that watch files need it.
const leastOfShare = 32

// shares returns the limits of a machine as NAME=NUMBER, computed from the limits of the host,
// which are the files of dir.
func shares(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		host, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, entry.Name()), err)
		}
		all = append(all, fmt.Sprintf("%s=%d", entry.Name(), max(host/HostShare, min(host, leastOfShare))))
	}
	return all, nil
}

// Share gives a machine its limits of what user namespaces count. leader is its first
// process, rootUID the host's user id of its root: 0 for a privileged machine, which has
// no such namespace. Of what none names, as in "max_user_namespaces", it gets nothing.
func Share(ctx context.Context, leader host.Process, rootUID int, none ...string) error {
	if rootUID == 0 {
		return nil
	}
	const sysctls = "/proc/sys/user"
	limits, err := shares(sysctls)
	if err != nil {
		return fmt.Errorf("the host's limits of user namespaces: %w", err)
	}
	for _, name := range none {
		limits = append(limits, name+"=0")
	}
	users, err := leader.Namespace("user")
	if err != nil {
		return err
	}
	defer users.Close()
	// Whoever opens these files changes those of the user namespace it is in.
	script := `cd "$0" && for limit; do echo "${limit#*=}" > "${limit%%=*}" || exit; done`
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--user=/proc/self/fd/3", "--setuid=0", "--setgid=0", "--", "sh", "-c", script, sysctls}, limits...)...)
	cmd.ExtraFiles = []*os.File{users}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("limits of its user namespace: %w: %s", err, printable.Line(string(out)))
	}
	return nil
}
