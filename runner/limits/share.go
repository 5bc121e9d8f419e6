// Package limits knows what a machine may have of the host, what it has used, and what it
// came up against. The kernel counts all of that, in the control group of the machine's
// service: nobody in the machine can change it. Only shares of what user namespaces count
// are set here; the others are settings of the service.
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

// What user namespaces count (user_namespaces(7), /proc/sys/user): instances and
// watches of inotify, namespaces and more. What is made in a machine's counts there,
// and to the host's root too, who made that namespace: all machines share the host's
// limits. One that takes all there is of inotify keeps the others from booting.

// HostShare is which part of what all machines have in common one may have: a quarter.
const HostShare = 4

// leastOfShare is what a machine may have in any case: a booted system and some programs
// that watch files need it.
const leastOfShare = 32

// shares are a machine's limits, NAME=NUMBER, of what the host has.
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
// no such namespace.
func Share(ctx context.Context, leader host.Process, rootUID int) error {
	if rootUID == 0 {
		return nil
	}
	const sysctls = "/proc/sys/user"
	limits, err := shares(sysctls)
	if err != nil {
		return fmt.Errorf("the host's limits of user namespaces: %w", err)
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
