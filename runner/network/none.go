package network

import "context"

// none is a loopback.
type none struct{}

func (none) Name() string { return "none" }

func (none) IsApart() bool { return true }

func (none) Check() error { return nil }

func (none) Resolver(host string) string { return host }

func (none) Attach(_ context.Context, m Machine) error { return allowPings(m) }
