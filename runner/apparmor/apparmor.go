// Package apparmor keeps machines and builds out of the host's AppArmor profiles, and reads
// what profiles denied.
//
// A profile of AppArmor applies to a path, such as /usr/sbin/named, in every mount namespace.
// So the profile that a daemon of the host has also confines the daemon of the same name in a
// machine, where it has other files. Machines, and what runs in trees that are being built, are
// therefore in a policy namespace of AppArmor's, which has no profiles: nothing needs to be
// installed for that. Programs of the
// host that serve machines, such as pasta, keep their profiles.
package apparmor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// policy is where the kernel shows its profiles: securityfs.
const policy = "/sys/kernel/security/apparmor"

// namespace is the policy namespace of all machines. It stays until the host reboots.
const namespace = "nspawn-runner"

// Enabled reports whether the kernel applies profiles of AppArmor.
func Enabled() bool {
	value, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && bytes.HasPrefix(value, []byte("Y"))
}

// Outside returns the label of processes to which no profile of the host applies, as for
// AppArmorProfile= of systemd.exec(5), and makes the policy namespace that it needs. The label
// is empty where there is no AppArmor, or where it is managed from outside, as in a container.
func Outside() (label string, err error) {
	if !Enabled() {
		return "", nil
	}
	err = os.Mkdir(filepath.Join(policy, "policy/namespaces", namespace), 0o755)
	switch {
	case err == nil || errors.Is(err, fs.ErrExist):
		return ":" + namespace + ":unconfined", nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	}
	return "", fmt.Errorf("AppArmor: make a policy namespace for machines: %w", err)
}

// Command is a command line that executes argv where no profile of the host applies. Where there
// is no AppArmor it is argv. An error is about the policy namespace; argv works all the same.
func Command(argv ...string) (command []string, err error) {
	label, err := Outside()
	if label == "" {
		return argv, err
	}
	return append([]string{"setpriv", "--apparmor-profile=" + label, "--"}, argv...), nil
}

// Profiles lists the profiles of the host among these names, with their modes: "passt
// (enforce)".
func Profiles(names ...string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(policy, "profiles"))
	if err != nil {
		return nil, fmt.Errorf("AppArmor: list the profiles: %w", err)
	}
	return among(string(text), names), nil
}

// among picks lines of the kernel's list of profiles.
func among(list string, names []string) (found []string) {
	for line := range strings.Lines(list) {
		for _, name := range names {
			if strings.HasPrefix(line, name+" (") {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}
