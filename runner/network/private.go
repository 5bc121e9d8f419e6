package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"nspawn-runner/runner/fault"
)

// private is a network of a machine's own. pasta connects it to the outside: it takes packets
// from the machine's network namespace and sends their content by ordinary sockets of the host.
// pasta runs as the machine's root, which on the host is a user without rights. It is in a
// control group below the machine's service, so it counts towards the machine's limits and ends
// with the machine.
type private struct{}

func (private) Name() string { return "private" }

func (private) IsApart() bool { return true }

func (private) Check() error {
	if _, err := exec.LookPath("pasta"); err != nil {
		return errors.New(`network private: there is no pasta: apt-get install passt, or set "network: host"`)
	}
	return nil
}

func (private) Resolver(host string) string { return forMachine(host) }

func (private) Attach(ctx context.Context, m Machine) error {
	if err := errors.Join(allowPings(m), trustAddresses(m)); err != nil {
		return err
	}
	group := filepath.Join(m.Service.Name(), "network")
	if err := os.Mkdir(group, 0o755); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	fault.Here("machine: control group of its network made")
	cgroup, err := os.Open(group)
	if err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	defer cgroup.Close()
	if err := confine(cgroup, m.CloudMetadata); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	fault.Here("machine: kept from the loopback of the host")
	if err := startPasta(ctx, m, cgroup); err != nil {
		return err
	}
	fault.Here("machine: network there")
	return nil
}

// confine loads the BPF programs that restrict pasta: which addresses it reaches, how it asks
// the host's resolver, which datagrams it receives, and which ports it takes.
func confine(cgroup *os.File, cloudMetadata bool) error {
	text, err := HostResolver()
	if err != nil {
		return err
	}
	resolver, err := forwarded(text)
	if err != nil {
		return err
	}
	closed := egress{closed: loopback, resolvers: resolvers(text)}
	if !cloudMetadata {
		closed.closed = slices.Concat(loopback, metadata)
	}
	if err := closed.keepFrom(cgroup); err != nil {
		return err
	}
	if resolver.IsValid() {
		if err := forwardNames(cgroup, resolver); err != nil {
			return err
		}
	}
	// After forwardNames: programs for one call run in the order in which they were attached,
	// and this one must see the resolver's real address.
	if err := letInAnswers(cgroup); err != nil {
		return err
	}
	return hidePorts(cgroup)
}
