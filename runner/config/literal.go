package config

import (
	"errors"
	"strings"

	"gopkg.in/yaml.v3"
)

// forPrograms are settings whose text is for other programs, which may have templates of
// their own.
var forPrograms = map[string]bool{"test": true, "environment": true, "service_start": true, "ready": true}

var errTemplate = errors.New("want the value itself, not a template: nspawn-runner reads it before ansible runs")

// literal refuses what only ansible could make the value of.
func literal(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && (strings.Contains(n.Value, "{{") || strings.Contains(n.Value, "{%")) {
		return &lineError{n.Line, errTemplate}
	}
	for i, inside := range n.Content {
		// A template without quotes: to YAML a mapping, whose key is another one.
		if n.Kind == yaml.MappingNode && i%2 == 0 && inside.Kind == yaml.MappingNode {
			return &lineError{n.Line, errTemplate}
		}
		if err := literal(inside); err != nil {
			return err
		}
	}
	return nil
}
