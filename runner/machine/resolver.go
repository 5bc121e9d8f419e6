package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// hostResolver is the host's resolv.conf(5), "" where there is none.
func hostResolver() (string, error) {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the host's resolver: %w", err)
	}
	return string(text), nil
}

// forwarded is the nameserver that pasta asks in place of one on the host's
// loopback: the first with an IPv4 address, as pasta reads the host's
// resolv.conf itself. It is not valid where no nameserver is on the loopback.
func forwarded(text string) (netip.Addr, error) {
	var first netip.Addr
	loopback := false
	for line := range strings.Lines(text) {
		if address, ok := nameserver(line); ok {
			loopback = loopback || address.IsLoopback()
			if address.Is4() && !first.IsValid() {
				first = address
			}
		}
	}
	switch {
	case !loopback:
		return netip.Addr{}, nil
	case !first.IsValid():
		return netip.Addr{}, errors.New("/etc/resolv.conf names a resolver on ::1 and none with an IPv4 address, which jobs need: add 127.0.0.1")
	}
	return first, nil
}

// withoutLoopback puts resolverAddress in the place of the first nameserver on
// the loopback, and leaves out others there.
func withoutLoopback(text string) string {
	var out strings.Builder
	forwarded := false
	for line := range strings.Lines(text) {
		if address, ok := nameserver(line); ok && address.IsLoopback() {
			if forwarded {
				continue
			}
			forwarded = true
			line = "nameserver " + resolverAddress + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}

// nameserver is the address in a line of resolv.conf(5) that names one.
func nameserver(line string) (netip.Addr, bool) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "nameserver" {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(words[1])
	return address.Unmap(), err == nil
}
