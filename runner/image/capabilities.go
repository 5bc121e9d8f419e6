package image

import (
	"fmt"
	"os"
	"strings"
)

// asBoundAs is a command that gives the one behind it no more capabilities than a
// process can ever have: nsenter enters a container with all that its caller has.
// systemd-nspawn takes from a box what would reach the host, whose network it shares:
// a role that flushes iptables, or sets the clock, shall fail in there (seen: it
// flushed the host's).
func asBoundAs(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	var bound uint64
	for line := range strings.Lines(string(text)) {
		if set, is := strings.CutPrefix(line, "CapBnd:"); is {
			if _, err := fmt.Sscanf(set, "%x", &bound); err != nil {
				return nil, fmt.Errorf("capabilities of process %d: %w", pid, err)
			}
		}
	}
	text, err = os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, err
	}
	var last int
	if _, err := fmt.Sscan(string(text), &last); err != nil {
		return nil, err
	}
	var without []string
	for capability := range last + 1 {
		if bound&(1<<capability) == 0 {
			without = append(without, fmt.Sprintf("-cap_%d", capability))
		}
	}
	if without == nil {
		return nil, nil
	}
	return []string{"setpriv", "--bounding-set=" + strings.Join(without, ","), "--"}, nil
}
