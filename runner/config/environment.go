package config

import (
	"gopkg.in/yaml.v3"

	"nspawn-runner/runner/gitlab"
)

// variables takes those that a job's shell gets.
func variables(n *yaml.Node, out *map[string]string) error {
	if err := scalars(n, out); err != nil {
		return err
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if err := gitlab.CheckVariable(name.Value, value.Value); err != nil {
			return &lineError{name.Line, err}
		}
	}
	return nil
}
