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
func hostResolver() string {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return ""
	}
	return string(text)
}

// machineResolver is the resolv.conf of a machine, and whether it gets one:
// the host's, with an address that leads to a resolver on the host's loopback,
// like 127.0.0.53, where a machine with a network of its own could not reach it.
func machineResolver(network string) (text string, there bool, err error) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("the host's resolver: %w", err)
	}
	if network != NetworkPrivate {
		return string(host), true, nil
	}
	return withoutLoopback(string(host)), true, nil
}

// loopbackResolver is the first nameserver of a resolv.conf(5) that is on the
// loopback, or "". What listens on ::1 is asked on 127.0.0.1.
func loopbackResolver(text string) string {
	for line := range strings.Lines(text) {
		if address, ok := nameserver(line); ok && address.IsLoopback() {
			if address.Is6() {
				return "127.0.0.1"
			}
			return address.String()
		}
	}
	return ""
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
