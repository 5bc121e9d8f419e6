package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
)

// Of is the network of another machine, which is attached to n. What is in it reaches the
// other one on its loopback, and goes the other one's way out.
func Of(n Network) Network { return joined{n} }

// joined is a network that is there before the machine is.
type joined struct{ Network }

func (joined) Check() error { return nil }

// IsApart is false: systemd-nspawn leaves a machine in the network in which it starts.
func (joined) IsApart() bool { return false }

// Attach has nothing to do: what the other machine is kept from, this one is too.
func (joined) Attach(context.Context, Machine) error { return nil }

// Enter puts this thread, which the caller has locked, into the network of a machine whose
// first process is given, and what it starts. Machines that share a network have user ids of
// their own each: so from then on, no port needs a privilege there that only one can have.
func Enter(leader host.Process) error {
	namespace, err := leader.Namespace("net")
	if err != nil {
		return fmt.Errorf("the network to join: %w", err)
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join a network: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		return fmt.Errorf("open the low ports of a network: %w", err)
	}
	return nil
}

// knockLimit is how long a port of a loopback may take to answer.
const knockLimit = 500 * time.Millisecond

// Answers says whether a TCP port on the loopback of a machine takes connections.
func Answers(leader host.Process, port uint16) bool {
	namespace, err := leader.Namespace("net")
	if err != nil {
		return false
	}
	defer namespace.Close()
	return inNetwork(namespace, func() error { return knock(port) }) == nil
}

// loopbacks are the addresses under which services are reached.
var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// knock connects to a port of the loopback of this thread's network. net.Dial makes the
// socket for an address, as opposed to a name, on the thread that calls it.
func knock(port uint16) (err error) {
	for _, address := range loopbacks {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(address, port).String(), knockLimit); err == nil {
			return conn.Close()
		}
	}
	return err
}
