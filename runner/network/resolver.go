package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// HostResolver is the text of the host's resolv.conf(5), "" where there is none.
func HostResolver() (string, error) {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the host's resolver: %w", err)
	}
	return string(text), nil
}

// forwarded is the first nameserver on the host's loopback that has an IPv4 address.
// It is not valid where there is none. That there is only one on ::1 is an error.
func forwarded(text string) (netip.Addr, error) {
	onlyThere, found := true, false
	for line := range strings.Lines(text) {
		address, ok := nameserver(line)
		if ok && address.IsLoopback() && address.Is4() {
			return address, nil
		}
		found = found || ok
		onlyThere = onlyThere && (!ok || address.IsLoopback())
	}
	if found && onlyThere {
		return netip.Addr{}, errors.New("/etc/resolv.conf names a resolver on ::1 and none on 127.0.0.1, which jobs need: add it")
	}
	return netip.Addr{}, nil
}

// resolvers are the nameservers that jobs may ask: the one to which their questions
// are forwarded, and the first three that are not on the loopback, since programs ask
// three (resolv.conf(5)).
func resolvers(text string) []netip.Addr {
	var all []netip.Addr
	for line := range strings.Lines(text) {
		if address, ok := nameserver(line); ok && !address.IsLoopback() && len(all) < 3 {
			all = append(all, address.WithZone(""))
		}
	}
	if address, err := forwarded(text); err == nil && address.IsValid() {
		all = append(all, address)
	}
	return all
}

// forMachine is what a machine with a private network gets of it: resolverAddress in the
// place of the forwarded nameserver, and no others on the loopback. Zones of link-local
// addresses name interfaces of the host; they become that of the machine's own one: pasta
// sends on what leaves that.
func forMachine(text string) string {
	var out strings.Builder
	host, _ := forwarded(text)
	for line := range strings.Lines(text) {
		address, ok := nameserver(line)
		switch {
		case ok && address.IsLoopback() && address != host:
			continue
		case ok && address.IsLoopback():
			host = netip.Addr{} // once
			line = "nameserver " + resolverAddress + "\n"
		case ok && address.Zone() != "":
			line = "nameserver " + address.WithZone(Interface).String() + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}

// Nameservers are the addresses of all nameservers in the text of a resolv.conf(5), as
// they are written there.
func Nameservers(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if _, ok := nameserver(line); ok {
			all = append(all, strings.Fields(line)[1])
		}
	}
	return all
}

// nameserver is the address in a line of resolv.conf(5) that names one.
func nameserver(line string) (netip.Addr, bool) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "nameserver" {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(words[1])
	switch address = address.Unmap(); address { // this host, as on its loopback
	case netip.IPv4Unspecified():
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		address = netip.IPv6Loopback()
	}
	return address, err == nil
}
