package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// setDevices reads a list of device nodes. What they are is the host's to say.
func (c *Config) setDevices(n *yaml.Node) error {
	var devices []string
	err := each(n, func(word string) error {
		device := filepath.Clean(word)
		if !below(device, "/dev") {
			return fmt.Errorf("want a device below /dev, like /dev/kvm")
		}
		devices = append(devices, device)
		return nil
	})
	c.Devices = devices
	return err
}

// kept are the directories of a machine that belong to its kernel, to its
// service manager, or to all of its programs.
var (
	keptTrees = []string{"/proc", "/sys", "/dev", "/run"}
	kept      = []string{"/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/var", "/tmp"}
)

// setBinds reads a list of FROM, FROM:TO, and each with :rw or :ro.
func (c *Config) setBinds(n *yaml.Node) error {
	var binds []Bind
	err := each(n, func(word string) error {
		bind, err := parseBind(word)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(binds, func(other Bind) bool { return other.To == bind.To }) {
			return fmt.Errorf("another one has the same place")
		}
		binds = append(binds, bind)
		return nil
	})
	c.Binds = binds
	return err
}

func parseBind(spec string) (Bind, error) {
	from, mode := spec, ""
	for _, suffix := range []string{":rw", ":ro"} {
		if path, ok := strings.CutSuffix(spec, suffix); ok {
			from, mode = path, suffix
		}
	}
	from, to, given := strings.Cut(from, ":")
	if !given {
		to = from
	}
	if strings.Contains(to, ":") {
		return Bind{}, fmt.Errorf("want FROM, FROM:TO, or one of them with :rw at the end, for a writable bind")
	}
	for _, path := range []*string{&from, &to} {
		if !filepath.IsAbs(*path) {
			return Bind{}, fmt.Errorf("%q: want an absolute path", *path)
		}
		*path = filepath.Clean(*path)
	}
	switch {
	case from == "/":
		return Bind{}, fmt.Errorf("not all of the host")
	case from == "/dev" || below(from, "/dev"):
		return Bind{}, fmt.Errorf("a device is for nspawn_runner_devices")
	case slices.Contains(kept, to) || slices.ContainsFunc(keptTrees, func(top string) bool { return to == top || below(to, top) }):
		return Bind{}, fmt.Errorf("nothing may be put over %s of a machine", to)
	}
	return Bind{From: from, To: to, Writable: mode == ":rw"}, nil
}

// below says whether path lies in a directory, at any depth.
func below(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// each calls take with each word of a list. Its errors name the word and know its
// line.
func each(n *yaml.Node, take func(word string) error) error {
	if n.Kind != yaml.SequenceNode {
		return fmt.Errorf("want a list")
	}
	for _, item := range n.Content {
		line := item.Line
		for item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		var word string
		if err := text(item, &word); err != nil {
			return &lineError{line, err}
		}
		if err := take(word); err != nil {
			return &lineError{line, fmt.Errorf("%q: %w", word, err)}
		}
	}
	return nil
}

// lineError is about another line than that at which the value begins.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
