package box

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SetHostname gives the tree at root its host name, and takes from it what bootstraps
// copy into it from the host on which they run. A machine gets its resolv.conf when it
// starts.
func SetHostname(root, hostname string) error {
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
	return WriteFile(tree, "etc/hostname", []byte(hostname+"\n"), 0o644)
}

// ClearIdentity takes from the tree at root the identity that installing systemd and dbus
// gave it, so that each machine has its own. An empty machine-id is a fresh one
// at each boot without the ceremonies of a first boot; see machine-id(5).
func ClearIdentity(root string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Lstat("etc"); errors.Is(err, fs.ErrNotExist) {
		return nil // what else is missing is for image.Check to say
	}
	for _, path := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if err := removeIfThere(tree, path); err != nil {
			return err
		}
	}
	return WriteFile(tree, "etc/machine-id", nil, 0o444)
}

// ClearBoot takes from the tree at root, from which a machine was booted, what belongs
// to that boot alone, and its identity.
func ClearBoot(root string) error {
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
	return ClearIdentity(root)
}

// ofOneBoot are what no two machines may share, and what each makes for itself.
var ofOneBoot = []string{
	"var/lib/systemd/random-seed", "var/lib/systemd/credential.secret",
	"tmp/.*-unix", "tmp/systemd-private-*", "var/tmp/systemd-private-*",
}
