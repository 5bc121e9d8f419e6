package config

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Amount is an amount of memory, disk or tasks as systemd.resource-control(5) writes it:
// bytes or a number, a share of the host's, or no limit.
type Amount struct {
	bytes    uint64
	percent  uint64
	infinite bool
}

// Bytes is the amount on a host with this much in all. No limit is
// math.MaxUint64, as systemd has it.
func (a Amount) Bytes(whole uint64) uint64 {
	switch {
	case a.infinite:
		return math.MaxUint64
	case a.percent > 0:
		high, low := bits.Mul64(whole, a.percent)
		quotient, _ := bits.Div64(high%100, low, 100)
		return quotient
	}
	return a.bytes
}

// parseFinite refuses infinity, for what has to be there.
func (a *Amount) parseFinite(n *yaml.Node) error {
	var read Amount
	if err := read.parse(n); err != nil || read.infinite {
		return fmt.Errorf("want an amount like 2G, 512M, 10%% or 0, not %q", n.Value)
	}
	*a = read
	return nil
}

// parseAtLeast refuses less than so many bytes.
func (a *Amount) parseAtLeast(n *yaml.Node, least uint64) error {
	var read Amount
	if err := read.parse(n); err != nil {
		return err
	}
	if !read.infinite && read.percent == 0 && read.bytes < least {
		return fmt.Errorf("want at least %dM, not %q", least>>20, n.Value)
	}
	*a = read
	return nil
}

// parseTasks takes a number of processes, a percentage or no limit.
func (a *Amount) parseTasks(n *yaml.Node) error {
	var read Amount
	if (strings.HasSuffix(n.Value, "%") || n.Value == "infinity") && read.parse(n) == nil {
		*a = read
		return nil
	}
	if err := number(n, &read.bytes, 64, 4194304); err != nil {
		return fmt.Errorf("want a number from 64 to 4194304, a percentage or infinity, not %q", n.Value)
	}
	*a = read
	return nil
}

func (a *Amount) parse(n *yaml.Node) error {
	bad := fmt.Errorf("want an amount like 2G, 512M, 40%% or infinity, not %q", n.Value)
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		return bad
	}
	if n.Value == "infinity" {
		*a = Amount{infinite: true}
		return nil
	}
	if digits, ok := strings.CutSuffix(n.Value, "%"); ok {
		percent, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || percent < 1 || percent > 100 {
			return bad
		}
		*a = Amount{percent: percent}
		return nil
	}
	digits, shift := n.Value, 0
	if i := strings.IndexByte("KMGT", digits[len(digits)-1]); i >= 0 {
		digits, shift = digits[:len(digits)-1], 10*(i+1)
	}
	value, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || value > math.MaxUint64>>shift {
		return bad
	}
	*a = Amount{bytes: value << shift}
	return nil
}
