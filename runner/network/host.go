package network

import (
	"context"
	"fmt"
)

// hosts is the host's network. Root in a machine has no privilege in it, so it cannot forge
// packets.
type hosts struct{}

func (hosts) Name() string { return "host" }

func (hosts) IsApart() bool { return false }

func (hosts) Check() error { return nil }

func (hosts) Resolver(host string) string { return host }

// Attach blocks the cloud's metadata service, as confine does for a private network.
func (hosts) Attach(_ context.Context, m Machine) error {
	if m.CloudMetadata {
		return nil
	}
	text, err := HostResolver()
	if err != nil {
		return err
	}
	if err := (egress{closed: metadata, resolvers: resolvers(text)}).keepFrom(m.Service); err != nil {
		return fmt.Errorf(`network host: %w; "cloud_metadata: true" turns this off`, err)
	}
	return nil
}
