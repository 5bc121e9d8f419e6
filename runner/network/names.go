package network

import (
	"fmt"
	"slices"
	"strings"
)

// Private has a way out of its own, Host is the host's network, None leads nowhere.
var (
	Private Network = private{}
	Host    Network = hosts{}
	None    Network = none{}
)

// all are the networks that a machine can be attached to, the default first.
var all = []Network{Private, Host, None}

// Names are the networks' names in the configuration, the default first.
func Names() []string {
	var names []string
	for _, n := range all {
		names = append(names, n.Name())
	}
	return names
}

// Named returns the network with this name.
func Named(name string) (Network, error) {
	at := slices.IndexFunc(all, func(n Network) bool { return n.Name() == name })
	if at < 0 {
		return nil, fmt.Errorf("network %q: unknown; use one of %s", name, strings.Join(Names(), ", "))
	}
	return all[at], nil
}
