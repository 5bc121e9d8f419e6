package box

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path"
)

// Nothing is booted while a playbook runs in a box: there is no systemd to ask for anything.
// Playbooks for machines ask all the time, and what they want of it for the next
// boot can be had without. So commands in the box are told, in the word of systemd
// that ansible knows too, and programs that would fail all the same have a stand-in:
// it does what counts at the next boot, and nothing of what ends with this one.

// Offline is the variable that makes systemctl ignore what only a manager can do,
// and ansible's module systemd warn of it in place of failing.
const Offline = "SYSTEMD_OFFLINE"

// standIns are shell scripts, each called as the program that it stands in for: those for
// unbooted builds, and those for booted ones.
//
//go:embed unbooted booted
var standIns embed.FS

// standInDir comes first in root's PATH, also in sudo's. No package has files
// there, so that none replaces a stand-in in the middle of a playbook.
const standInDir = "usr/local/sbin"

// programDirs are where packages have the programs. Before usrmerge the latter
// two were directories of their own.
var programDirs = []string{"usr/bin", "usr/sbin", "bin", "sbin"}

// standInsFor are those of one kind that a tree gets: for the programs that it has.
func standInsFor(tree *os.Root, kind string) ([]Loan, error) {
	entries, err := standIns.ReadDir(kind)
	if err != nil {
		return nil, err
	}
	var loans []Loan
	for _, entry := range entries {
		has, err := hasProgram(tree, entry.Name())
		if err != nil {
			return nil, err
		}
		if !has {
			continue
		}
		script, err := standIns.ReadFile(path.Join(kind, entry.Name()))
		if err != nil {
			return nil, err
		}
		loans = append(loans, Loan{path.Join(standInDir, entry.Name()), script, 0o755})
	}
	return loans, nil
}

// hasProgram says whether packages brought the tree a program.
func hasProgram(tree *os.Root, name string) (bool, error) {
	for _, dir := range programDirs {
		switch _, err := tree.Lstat(path.Join(dir, name)); {
		case err == nil:
			return true, nil
		case !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	return false, nil
}
