// Package network connects machines to networks. A machine is attached to one of three:
//
//   - private: a network of its own, from which passt's pasta leads out, as on any
//     computer behind a router;
//   - host: the host's own;
//   - none: a loopback interface and nothing else.
//
// The packets of a job leave the host from a process on the host: from pasta, or with network
// host from the job's own processes. So BPF programs in the kernel restrict these processes. They
// block what only the host may reach: its loopback (for private networks) and the metadata
// service of its cloud. They are attached to a control group and end with it.
package network

import (
	"context"
	"os"

	"nspawn-runner/runner/host"
)

// Network is what a machine is attached to.
type Network interface {
	// Name is the network's name in the configuration.
	Name() string
	// Check says what the host lacks for machines on this network.
	Check() error
	// IsApart says whether its machines have a network namespace of their own, which is
	// made with the machine.
	IsApart() bool
	// Resolver is what a machine gets for a resolv.conf(5), made of the host's text.
	Resolver(host string) string
	// Attach connects a machine that is starting, as soon as its first process is there.
	Attach(ctx context.Context, m Machine) error
}

// Machine is what a network needs to know of a machine.
type Machine struct {
	// Leader is its first process, which has all its namespaces.
	Leader host.Process
	// Service is the directory of its service's control group. What is in there, or in
	// groups below, ends with the machine.
	Service *os.File
	// FirstID is the host's user id of its root, IDs how many user and group ids are its
	// own from there on. Both are 0 for a privileged machine, which has no user namespace.
	FirstID, IDs int
	// CloudMetadata lets it reach the metadata service of the host's cloud.
	CloudMetadata bool
}
