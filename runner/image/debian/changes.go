package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Differences looks at what dpkg and apt keep in two trees, and says in what
// they differ; empty if in nothing.
func Differences(before, after string) (string, error) {
	old, err := os.OpenRoot(before)
	if err != nil {
		return "", err
	}
	defer old.Close()
	now, err := os.OpenRoot(after)
	if err != nil {
		return "", err
	}
	defer now.Close()

	for _, file := range []string{dpkgStatus, "var/lib/apt/extended_states"} {
		was, err := readIfThere(old, file)
		if err != nil {
			return "", err
		}
		is, err := readIfThere(now, file)
		if err != nil {
			return "", err
		}
		if !bytes.Equal(was, is) {
			return "the packages changed", nil
		}
	}
	was, err := aptLists(old)
	if err != nil {
		return "", err
	}
	is, err := aptLists(now)
	if err != nil {
		return "", err
	}
	if was != is {
		return "apt's lists changed", nil
	}
	return "", nil
}

// aptLists describes the lists of packages that apt has downloaded. It gives them
// the mirror's times, so they need not be read. Release files are left out:
// a mirror signs them afresh when nothing is new.
func aptLists(tree *os.Root) (string, error) {
	const dir = "var/lib/apt/lists"
	entries, err := fs.ReadDir(tree.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var lists strings.Builder
	for _, entry := range entries {
		if !strings.Contains(entry.Name(), "_Packages") {
			continue
		}
		info, err := tree.Lstat(path.Join(dir, entry.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&lists, entry.Name(), info.Size(), info.ModTime().Unix())
	}
	return lists.String(), nil
}
