package network

import (
	"context"
	"fmt"
)

// hosts is the host's network. Root in a machine has no privilege in it, and makes no
// packets by hand.
type hosts struct{}

func (hosts) Name() string { return "host" }

func (hosts) IsApart() bool { return false }

func (hosts) Check() error { return nil }

func (hosts) Resolver(host string) string { return host }

// Attach keeps the machine from the cloud's metadata, as confine does on a private network.
func (hosts) Attach(_ context.Context, m Machine) error {
	if m.CloudMetadata {
		return nil
	}
	text, err := HostResolver()
	if err != nil {
		return err
	}
	if err := (egress{closed: metadata, resolvers: resolvers(text)}).keepFrom(m.Service); err != nil {
		return fmt.Errorf(`network host: %w; "cloud_metadata: true" does without`, err)
	}
	return nil
}
