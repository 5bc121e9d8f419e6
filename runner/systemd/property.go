package systemd

import (
	"strings"

	"github.com/godbus/dbus/v5"
)

// Property is one setting of a transient unit, as systemd.exec(5) and its
// kin name it.
type Property struct {
	Name  string
	Value dbus.Variant
}

// Set makes a Property. The value's Go type decides the D-Bus type: string,
// bool, uint64, []string, or dbus.UnixFD.
func Set(name string, value any) Property { return Property{name, dbus.MakeVariant(value)} }

// ExecStart is the command of a service. Nothing in it is expanded by systemd:
// the manager expands $ in what it executes, so each one is doubled.
func ExecStart(argv ...string) Property { return command("ExecStart", argv) }

// ExecStop is the command that stops a service, as ExecStart starts it.
func ExecStop(argv ...string) Property { return command("ExecStop", argv) }

func command(name string, argv []string) Property {
	escaped := make([]string, len(argv))
	for i, arg := range argv {
		escaped[i] = strings.ReplaceAll(arg, "$", "$$")
	}
	type command struct {
		Path          string
		Argv          []string
		IgnoreFailure bool
	}
	return Set(name, []command{{argv[0], escaped, false}})
}

// DeviceAllow is the list of devices that a unit may use: pairs of a device,
// or class, and a combination of r, w and m.
func DeviceAllow(pairs ...[2]string) Property {
	type rule struct{ Device, Access string }
	rules := make([]rule, len(pairs))
	for i, p := range pairs {
		rules[i] = rule{p[0], p[1]}
	}
	return Set("DeviceAllow", rules)
}
