package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nspawn-runner/runner/image/box"
)

// finishDebootstrap does what mmdebstrap does by itself: the exceptions for apt in
// the image, a mirror that is a directory in its sources.list, which debootstrap
// leaves empty, and no packages left in apt's cache.
func finishDebootstrap(root string, o Bootstrap, exceptions []string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if exceptions != nil {
		conf := strings.Join(exceptions, ";\n") + ";\n"
		if err := tree.WriteFile("etc/apt/apt.conf.d/99debootstrap", []byte(conf), 0o644); err != nil {
			return err
		}
	}
	if strings.HasPrefix(o.Mirror, "file://") {
		line := fmt.Sprintf("deb %s %s %s\n", o.Mirror, o.Suite, strings.Join(o.Components, " "))
		if err := tree.WriteFile("etc/apt/sources.list", []byte(line), 0o644); err != nil {
			return err
		}
	}
	const archives = "var/cache/apt/archives"
	entries, err := fs.ReadDir(tree.FS(), archives)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == ".deb" {
			if err := tree.Remove(filepath.Join(archives, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// trust gives apt in the tree the keys of the mirror that it was made from, unless
// they came with a package, as Ubuntu's do.
func trust(root, keyring string) error {
	if keyring == "" {
		return nil
	}
	keys, err := os.ReadFile(keyring)
	if err != nil {
		return err
	}
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Stat(strings.TrimPrefix(keyring, "/")); err == nil {
		return nil
	}
	// apt-key(8): what is armored must be called .asc.
	name := "etc/apt/trusted.gpg.d/nspawn-runner.gpg"
	if bytes.HasPrefix(keys, []byte("-----BEGIN PGP")) {
		name = "etc/apt/trusted.gpg.d/nspawn-runner.asc"
	}
	if err := tree.MkdirAll("etc/apt/trusted.gpg.d", 0o755); err != nil {
		return err
	}
	return box.WriteFile(tree, name, keys, 0o644)
}
