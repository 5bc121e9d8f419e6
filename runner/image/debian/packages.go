package debian

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// dpkgStatus is where dpkg keeps what is installed.
const dpkgStatus = "var/lib/dpkg/status"

// Packages returns the packages that are installed in a tree, and their
// versions. One of a foreign architecture is called NAME:ARCH, as dpkg does.
// Links in the tree do not lead out of it.
func Packages(root string) (map[string]string, error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	text, err := tree.ReadFile(dpkgStatus)
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	return parseStatus(text), nil
}

// parseStatus reads paragraphs of `Field: value` lines. Only half-removed
// packages are there without being installed.
func parseStatus(text []byte) map[string]string {
	type installed struct{ name, arch, version string }
	var all []installed
	native := ""
	for paragraph := range bytes.SplitSeq(text, []byte("\n\n")) {
		var p installed
		status := ""
		for line := range strings.Lines(string(paragraph)) {
			field, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
			switch field {
			case "Package":
				p.name = value
			case "Architecture":
				p.arch = value
			case "Version":
				p.version = value
			case "Status":
				status = value
			}
		}
		if p.name == "" || !strings.HasSuffix(status, " installed") {
			continue
		}
		if p.name == "dpkg" {
			native = p.arch
		}
		all = append(all, p)
	}
	packages := map[string]string{}
	for _, p := range all {
		if native != "" && p.arch != native && p.arch != "all" {
			p.name += ":" + p.arch
		}
		packages[p.name] = p.version
	}
	return packages
}

// PackageChange is how one package differs between two trees. Before is empty
// for one that came, After for one that went.
type PackageChange struct {
	Package string `json:"package"`
	Before  string `json:"before,omitempty"`
	After   string `json:"after,omitempty"`
}

// ComparePackages returns what differs, sorted by name.
func ComparePackages(before, after map[string]string) []PackageChange {
	changes := []PackageChange{}
	for name, version := range after {
		if before[name] != version {
			changes = append(changes, PackageChange{name, before[name], version})
		}
	}
	for name, version := range before {
		if _, stayed := after[name]; !stayed {
			changes = append(changes, PackageChange{name, version, ""})
		}
	}
	slices.SortFunc(changes, func(a, b PackageChange) int { return cmp.Compare(a.Package, b.Package) })
	return changes
}

// Release says which Debian a tree is, like "Debian GNU/Linux 12 (bookworm) 12.8".
// It is empty for a tree that does not say.
func Release(root string) (string, error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer tree.Close()
	text, err := tree.ReadFile("etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := ""
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			name = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	// Debian's point release is only here; a derivative has another's name here.
	version, err := readIfThere(tree, "etc/debian_version")
	if point := string(bytes.TrimSpace(version)); strings.HasPrefix(name, "Debian") && strings.Contains(point, ".") {
		name += " " + point
	}
	return name, err
}

// readIfThere reads a file of a tree; one that is missing is empty.
func readIfThere(tree *os.Root, path string) ([]byte, error) {
	text, err := tree.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
