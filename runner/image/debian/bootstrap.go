// Package debian makes the tree of a Debian, and reads what is in one.
//
// It runs mmdebstrap or debootstrap (source.go) on the mirror that an image is made of
// (bootstrap.go), brings in the corrections that a stable release has elsewhere
// (archive.go), does what debootstrap leaves undone (finish.go), and saves the tree as a
// base (base.go): then the next image that is made of the same begins with a copy.
package debian

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// included are the packages without which an image is of no use: git, dbus,
// systemd and python3 are the original's; git needs ca-certificates to clone
// from https, a boot needs systemd-sysv, and jobs expect netbase and procps.
var included = []string{"git", "dbus", "systemd", "python3", "ca-certificates", "systemd-sysv", "netbase", "procps"}

// DefaultSuite is the suite of an image for which no suite is named.
const DefaultSuite = "unstable"

// NoSecurity as the address of a mirror means that there is none.
const NoSecurity = "none"

// Bootstrap says what the first tree of an image is made of. It is for the
// caller to see that the words are good ones: they stand on a command line.
type Bootstrap struct {
	// Suite is the release, unstable if it is empty.
	Suite string
	// Mirror is the address of the packages; empty for the one that the
	// program knows, which is Debian's.
	Mirror string
	// Security is the address of the mirror with SUITE-security, empty for Mirror or
	// what lies beside it, NoSecurity for none. NoUpdates leaves out SUITE-updates. Both
	// are for a Mirror that is given.
	Security  string
	NoUpdates bool
	// AnyAge takes a mirror whose Release files say that their time is over.
	AnyAge bool
	// Components of the mirror; none means main.
	Components []string
	// Keyring is a file of the host with the mirror's keys, empty for what the
	// host's apt trusts. The image's apt comes to trust them too.
	Keyring string
	// Include are packages to install besides those that each image has.
	Include []string
	// Variant is minbase, which is also the empty one, buildd or important.
	Variant string
	// Program is mmdebstrap, debootstrap, or auto or empty for the first of
	// these that is installed.
	Program string
}

// complete puts in place of what is left empty what it means.
func (o Bootstrap) complete() (Bootstrap, error) {
	o.Suite = cmp.Or(o.Suite, DefaultSuite)
	o.Variant = cmp.Or(o.Variant, "minbase")
	if len(o.Components) == 0 {
		o.Components = []string{"main"}
	}
	o.Include = append(slices.Clone(included), o.Include...)
	if o.Mirror == "" && (o.Security != "" || o.NoUpdates) {
		return o, errors.New("nspawn_runner_security_mirror and nspawn_runner_updates need nspawn_runner_mirror")
	}
	if o.Keyring != "" {
		if _, err := os.ReadFile(o.Keyring); err != nil {
			return o, fmt.Errorf("keyring: %w", err)
		}
	}
	if o.Program != "" && o.Program != "auto" {
		if _, err := exec.LookPath(o.Program); err != nil {
			return o, fmt.Errorf("there is no %s: apt-get install %[1]s", o.Program)
		}
		return o, nil
	}
	for _, program := range []string{"mmdebstrap", "debootstrap"} { // the first needs half the time
		if _, err := exec.LookPath(program); err == nil {
			o.Program = program
			return o, nil
		}
	}
	return o, errors.New("there is neither mmdebstrap nor debootstrap: apt-get install mmdebstrap")
}

// isDirectory says whether path, links followed, is a directory.
func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// MirrorPaths are where mirrors lie that are directories of this host.
func (o Bootstrap) MirrorPaths() []string {
	var paths []string
	for _, mirror := range append([]string{o.Mirror}, o.securityMirrors()...) {
		path, is := strings.CutPrefix(mirror, "file://")
		if is && isDirectory(path) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// securityMirrors are the places where SUITE-security may be: where the administrator
// says; else on the mirror itself, as Ubuntu's is, or beside it, as Debian's mirrors have
// it: in debian-security, not debian.
func (o Bootstrap) securityMirrors() []string {
	if o.Security != "" {
		return []string{o.Security}
	}
	places := []string{o.Mirror}
	parts := strings.Split(o.Mirror, "/")
	for i, part := range slices.Backward(parts) {
		if part == "debian" && i > 2 { // not the host
			parts[i] = "debian-security"
			return append(places, strings.Join(parts, "/"))
		}
	}
	return places
}
