// Package config knows every setting: one table (Keys) feeds the
// configuration file, the variables of playbooks, and the documentation.
//
// /etc/nspawn-runner.yaml sets the host's defaults. In a playbook, the first
// play's vars: override them for one image, with the prefix nspawn_runner_.
// The file lies outside /etc/nspawn-runner/, where every YAML file is the
// playbook of an image.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"nspawn-runner/runner/spelling"
)

// DefaultFile is where the configuration lies unless --config says otherwise.
const DefaultFile = "/etc/nspawn-runner.yaml"

// VariablePrefix begins the names of a playbook's variables that are settings.
const VariablePrefix = "nspawn_runner_"

// Default is the configuration without a file.
func Default() Config {
	var c Config
	for _, key := range Keys {
		if key.Default == "" {
			continue
		}
		node := &yaml.Node{Kind: yaml.ScalarNode, Value: key.Default}
		if err := key.set(&c, node); err != nil {
			panic(fmt.Sprintf("default of %s: %v", key.Name, err)) // a test reads them all
		}
	}
	return c
}

// Load reads the configuration file. That it does not exist means defaults,
// unless it was asked for by name.
func Load(path string) (Config, error) {
	c := Default()
	wanted := path != ""
	if !wanted {
		path = DefaultFile
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !wanted {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	var doc, second yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(data))
	switch err := documents.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return c, nil
	case err != nil:
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	switch err := documents.Decode(&second); {
	case err == nil:
		return c, fmt.Errorf("configuration %s:%d: a second document: want one", path, second.Line)
	case !errors.Is(err, io.EOF):
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	mapping := doc.Content[0]
	if mapping.Tag == "!!null" {
		return c, nil
	}
	if mapping.Kind != yaml.MappingNode {
		return c, fmt.Errorf("configuration %s:%d: want lines of the form \"key: value\"", path, mapping.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		name, value := mapping.Content[i], mapping.Content[i+1]
		if seen[name.Value] {
			return c, fmt.Errorf("configuration %s:%d: %s is set twice", path, name.Line, name.Value)
		}
		seen[name.Value] = true
		if err := c.apply(path, name, value, "", func(k Key) bool { return k.Host }); err != nil {
			return c, fmt.Errorf("configuration %w", err)
		}
	}
	return c, nil
}

// ForImage returns the configuration of the image whose playbook has these
// variables: their full names, prefix included, and their values, which know
// their lines.
func (c Config) ForImage(playbook string, variables map[string]yaml.Node) (Config, error) {
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		value := variables[name]
		label := &yaml.Node{Value: name, Line: value.Line}
		if err := c.apply(playbook, label, &value, VariablePrefix, func(k Key) bool { return k.Image }); err != nil {
			return c, fmt.Errorf("playbook %w", err)
		}
	}
	return c, nil
}

// apply sets one key. Its errors begin with FILE:LINE.
func (c *Config) apply(file string, name, value *yaml.Node, prefix string, fits func(Key) bool) error {
	var names []string
	for _, key := range Keys {
		if !fits(key) {
			continue
		}
		if prefix+key.Name != name.Value {
			names = append(names, prefix+key.Name)
			continue
		}
		for value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		var err error
		if prefix != "" && !forPrograms[key.Name] {
			err = literal(value)
		}
		if err = cmp.Or(err, key.set(c, value)); err != nil {
			line := value.Line
			var inside *lineError
			if errors.As(err, &inside) {
				line = inside.line
			}
			return fmt.Errorf("%s:%d: %s: %w", file, line, name.Value, err)
		}
		return nil
	}
	return fmt.Errorf("%s:%d: unknown key %q%s", file, name.Line, name.Value, hint(name.Value, prefix, names))
}

// hint is what an unknown key may mean: one of names, which fit there, or a key of the other
// place, which is the file or playbooks.
func hint(unknown, prefix string, names []string) string {
	bare := strings.TrimPrefix(unknown, VariablePrefix)
	for _, key := range Keys {
		switch {
		case key.Name != bare:
		case prefix != "" && key.Host:
			return fmt.Sprintf("; %s is set in the configuration file", bare)
		case prefix == "" && key.Image && !key.Host:
			return fmt.Sprintf("; it is set for each image, as %s in the playbook", VariablePrefix+bare)
		case prefix == "":
			return fmt.Sprintf("; in the configuration file it is %s", bare)
		}
	}
	if near := spelling.Nearest(names, unknown); near != "" {
		return fmt.Sprintf(", did you mean %s?", near)
	}
	if bare != "" {
		for _, name := range names {
			if strings.HasSuffix(name, "_"+bare) {
				return fmt.Sprintf(", did you mean %s?", name)
			}
		}
	}
	manual := "nspawn-runner.yaml(5)"
	if prefix != "" {
		manual = "nspawn-runner-playbook(5)"
	}
	return fmt.Sprintf("; %s lists the keys", manual)
}
