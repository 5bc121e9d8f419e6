package image

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// forgetHost takes from a new tree what both bootstraps copy into it from the
// host on which it is built. A machine gets its resolv.conf when it starts.
func forgetHost(root, image string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, path := range []string{"etc/resolv.conf", "etc/hostname"} {
		if err := removeIfThere(tree, path); err != nil {
			return err
		}
	}
	return writeFile(tree, "etc/hostname", []byte(hostname(image)+"\n"), 0o644)
}

// forgetMachine takes from a tree the identity that installing systemd and dbus
// gave it, so that each machine has its own. An empty machine-id is a fresh one
// at each boot without the ceremonies of a first boot; see machine-id(5).
func forgetMachine(root string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Lstat("etc"); errors.Is(err, fs.ErrNotExist) {
		return nil // what else is missing is for Check to say
	}
	for _, path := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if err := removeIfThere(tree, path); err != nil {
			return err
		}
	}
	return writeFile(tree, "etc/machine-id", nil, 0o444)
}

// forgetBoot takes from a tree what belongs to one boot of it alone.
func forgetBoot(root string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	id, _ := tree.ReadFile("etc/machine-id")
	if name := strings.TrimSpace(string(id)); filepath.IsLocal(name) && !strings.Contains(name, "/") {
		if err := tree.RemoveAll(filepath.Join("var/log/journal", name)); err != nil {
			return err
		}
	}
	for _, pattern := range ofOneBoot {
		paths, err := fs.Glob(tree.FS(), pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := tree.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return forgetMachine(root)
}

// ofOneBoot are what no two machines may share, and what each makes for itself.
var ofOneBoot = []string{
	"var/lib/systemd/random-seed", "var/lib/systemd/credential.secret",
	"tmp/.*-unix", "tmp/systemd-private-*", "var/tmp/systemd-private-*",
}

// hostname makes a host name of an image's name.
func hostname(image string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, image)
	return cmp.Or(strings.Trim(name[:min(len(name), 63)], "-"), "localhost")
}
