package network

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// allowPings lets everybody in a machine send pings, as on any Debian: the ping of trixie
// is neither setuid nor has a capability. What systemd sets there for itself, all groups
// that there are, a user namespace has not.
func allowPings(m Machine) error {
	if m.IDs == 0 {
		return nil
	}
	network, err := m.Leader.Namespace("net")
	if err != nil {
		return err
	}
	defer network.Close()
	text := fmt.Sprintf("%d %d", m.FirstID, m.FirstID+m.IDs-1)
	return inNetwork(network, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(text), 0)
	})
}

// inNetwork does something in another network than this program's.
func inNetwork(namespace *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		// This goroutine's thread is never unlocked, so that it ends with it.
		runtime.LockOSThread()
		err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
