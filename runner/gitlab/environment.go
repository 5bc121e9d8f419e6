package gitlab

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Env looks up environment variables: os.Getenv, or a map's in tests.
type Env func(name string) string

// variableName is what a shell takes for the name of a variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// shellsOwn are the variables that bash lets nobody set.
var shellsOwn = []string{"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"}

// maxVariable bounds a variable in bytes: the kernel takes 128 KiB at most.
const maxVariable = 64 << 10

// CheckVariable says why a shell or a program cannot be given a variable.
func CheckVariable(name, value string) error {
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
