package network

import (
	"fmt"
	"os"
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
