package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// variableName is what a shell takes for the name of a variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// shellsOwn are the variables that bash lets nobody set.
var shellsOwn = []string{"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"}

// maxVariable bounds a variable in bytes: the kernel takes 128 KiB at most.
const maxVariable = 64 << 10

// variables takes those that a job's shell gets.
func variables(n *yaml.Node, out *map[string]string) error {
	if err := scalars(n, out); err != nil {
		return err
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if err := checkVariable(name.Value, value.Value); err != nil {
			return &lineError{name.Line, err}
		}
	}
	return nil
}

func checkVariable(name, value string) error {
	switch {
	case !variableName.MatchString(name):
		return fmt.Errorf("%q is not the name of a variable: want letters, digits and _", name)
	case slices.Contains(shellsOwn, name):
		return fmt.Errorf("%s is the shell's own, and cannot be set", name)
	case strings.Contains(value, "\x00"):
		return fmt.Errorf("%s: a variable has no NUL in it", name)
	case len(name)+len(value) > maxVariable:
		return fmt.Errorf("%s: longer than %d KiB", name, maxVariable>>10)
	}
	return nil
}
