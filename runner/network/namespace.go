package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// allowPings lets every user in a machine send pings, as on any Debian: the ping of trixie is
// neither setuid nor has a capability. systemd in the machine cannot do this: it sets the range
// to all group ids there are, and a user namespace does not have all of them.
func allowPings(m Machine) error {
	if m.IDs == 0 {
		return nil
	}
	return setSysctl(m, "ipv4/ping_group_range", fmt.Sprintf("%d %d", m.FirstID, m.FirstID+m.IDs-1))
}

// trustAddresses has the machine's kernel use each address at once. By default it asks first, for
// a second or two, whether another computer has it (RFC 4862, duplicate address detection), and
// only pasta is there. It asks without a sender's address, and the pasta of 2023 takes every
// sender for the machine's address: what came for the machine by IPv6 then was lost, until the
// machine sent something (seen).
func trustAddresses(m Machine) error {
	err := setSysctl(m, "ipv6/conf/default/accept_dad", "0")
	if errors.Is(err, fs.ErrNotExist) { // the host has no IPv6
		return nil
	}
	return err
}

// setSysctl sets a sysctl of the machine's network, by its path below net.
func setSysctl(m Machine, sysctl, value string) error {
	network, err := m.Leader.Namespace("net")
	if err != nil {
		return err
	}
	defer network.Close()
	return inNetwork(network, func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", sysctl), []byte(value), 0)
	})
}

// inNetwork calls do in another network namespace.
func inNetwork(namespace *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		// The goroutine never unlocks its thread, so Go ends the thread with the goroutine, and
		// nothing else runs in that namespace.
		runtime.LockOSThread()
		err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
