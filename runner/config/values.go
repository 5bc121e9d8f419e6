package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

func text(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		return fmt.Errorf("want text that is not empty")
	}
	*out = n.Value
	return nil
}

func absolute(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode || !filepath.IsAbs(n.Value) {
		return fmt.Errorf("want an absolute path")
	}
	*out = filepath.Clean(n.Value)
	return nil
}

// ownDirectory takes a directory in which all is this program's.
func ownDirectory(n *yaml.Node, out *string) error {
	if err := absolute(n, out); err != nil {
		return err
	}
	if *out == "/" {
		return fmt.Errorf("want a directory of its own, not /")
	}
	return nil
}

func boolean(n *yaml.Node, out *bool) error {
	// Decoding into a bool also takes the yes and no of Ansible's YAML 1.1.
	if n.Kind != yaml.ScalarNode || n.Decode(out) != nil {
		return fmt.Errorf("want true or false, not %q", n.Value)
	}
	return nil
}

func number(n *yaml.Node, out *uint64, low, high uint64) error {
	var value uint64
	if n.Kind != yaml.ScalarNode || n.Decode(&value) != nil || value < low || value > high {
		return fmt.Errorf("want a number from %d to %d, not %q", low, high, n.Value)
	}
	*out = value
	return nil
}

// processors takes a number of them, or a percentage of one, as systemd's CPUQuota.
func processors(n *yaml.Node, out *float64) error {
	digits, percent := strings.CutSuffix(n.Value, "%")
	value, err := strconv.ParseFloat(digits, 64)
	if percent {
		value /= 100
	}
	if n.Kind != yaml.ScalarNode || err != nil || !(value >= 0.01 && value <= 10000) {
		return fmt.Errorf("want a number of processors like 2, 1.5 or 150%%, not %q", n.Value)
	}
	*out = value
	return nil
}

func oneOf(n *yaml.Node, out *string, words ...string) error {
	for _, word := range words {
		if n.Kind == yaml.ScalarNode && n.Value == word {
			*out = word
			return nil
		}
	}
	return fmt.Errorf("want one of %q, not %q", words, n.Value)
}

func duration(n *yaml.Node, out *time.Duration) (err error) {
	text := n.Value
	if n.Kind != yaml.ScalarNode {
		text = ""
	}
	*out, err = ParseDuration(text)
	return err
}

// ParseDuration takes 90s, 5m, whole days as in 7d, or a plain number of seconds.
func ParseDuration(text string) (time.Duration, error) {
	value, err := time.ParseDuration(text)
	if seconds, plain := strconv.ParseUint(text, 10, 32); plain == nil {
		value, err = time.Duration(seconds)*time.Second, nil
	}
	if digits, ok := strings.CutSuffix(text, "d"); ok {
		var days uint64
		days, err = strconv.ParseUint(digits, 10, 16)
		value = time.Duration(days) * 24 * time.Hour
	}
	if err != nil || value < time.Second {
		return 0, fmt.Errorf("want a time like 90s, 5m or 7d, at least 1s, not %q", text)
	}
	return value, nil
}

// durationOrNone also takes 0.
func durationOrNone(n *yaml.Node, out *time.Duration) error {
	if n.Kind == yaml.ScalarNode && n.Value == "0" {
		*out = 0
		return nil
	}
	if err := duration(n, out); err != nil {
		return fmt.Errorf("want 0 or a time like 24h, at least 1s, not %q", n.Value)
	}
	return nil
}

func scalars(n *yaml.Node, out *map[string]string) error {
	values := map[string]string{}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("want lines of the form \"NAME: value\"")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i+1].Kind != yaml.ScalarNode {
			return fmt.Errorf("%s: want one value", n.Content[i].Value)
		}
		values[n.Content[i].Value] = n.Content[i+1].Value
	}
	*out = values
	return nil
}
