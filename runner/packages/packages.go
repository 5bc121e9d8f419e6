// Package packages lists the Debian packages that a host needs: the one list for the
// doctor, for what installs the program, and for the demo.
package packages

import (
	"os/exec"
	"strings"
)

// Package is a Debian package that a host needs.
type Package struct {
	Name string
	// Programs show that it is installed: one of them is enough, the first is the
	// package's own, the others do its work as well.
	Programs []string
	// Why says what the host cannot do without it.
	Why string
}

// What a host needs.
var (
	Nspawn  = Package{"systemd-container", []string{"systemd-nspawn"}, "machines cannot be started"}
	DBus    = Package{"dbus", []string{"dbus-daemon", "dbus-broker-launch"}, "systemd cannot be asked for anything"}
	Pasta   = Package{"passt", []string{"pasta"}, "machines have no network of their own"}
	Ansible = Package{"ansible-core", []string{"ansible-playbook"}, "playbooks cannot be run"}
	// mmdebstrap needs half the time of debootstrap.
	mmdebstrap = Package{"mmdebstrap", []string{"mmdebstrap", "debootstrap"}, "images cannot be created"}
)

// Needed are the packages of a host that keeps the default settings.
var Needed = []Package{Nspawn, DBus, Pasta, mmdebstrap, Ansible}

// Bootstrap is the package that creates images with a value of the setting bootstrap.
func Bootstrap(setting string) Package {
	if setting == "auto" {
		return mmdebstrap
	}
	return Package{setting, []string{setting}, mmdebstrap.Why}
}

// Find returns the program of the package that is on PATH, or "".
func (p Package) Find() string {
	for _, program := range p.Programs {
		if _, err := exec.LookPath(program); err == nil {
			return program
		}
	}
	return ""
}

// Missing are those of some packages of which no program is on PATH.
func Missing(of []Package) (missing []Package) {
	for _, p := range of {
		if p.Find() == "" {
			missing = append(missing, p)
		}
	}
	return missing
}

// Names are the names of packages.
func Names(of []Package) []string {
	names := make([]string, len(of))
	for i, p := range of {
		names[i] = p.Name
	}
	return names
}

// Install is the command that installs packages.
func Install(packages ...Package) string {
	return "apt-get install " + strings.Join(Names(packages), " ")
}
