package box

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// Loan is a file that a tree has only while commands run in it.
type Loan struct {
	Path    string // below the root
	Content []byte
	Mode    fs.FileMode
}

// aside is the suffix of the tree's own file, if it has one, meanwhile.
const aside = ".nspawn-runner"

// lend gives a tree what commands in a box need, and returns what takes it back:
//
//   - resolv.conf of the host, whose network a build shares;
//   - hosts, so that sudo does not ask the network for the host name;
//   - a policy-rc.d that keeps packages from starting their daemons;
//   - stand-ins for programs that need a booted system, see standins.go;
//   - what more the caller has.
//
// A file that was changed meanwhile stays as it is: then it is the image's.
// Nothing is bound over the tree's files, because packages rename them.
func lend(root, hostname string, more []Loan) (takeBack func() error, err error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, tree.Close())
	}
	hosts, err := tree.ReadFile("etc/hosts")
	if err != nil {
		hosts = []byte("127.0.0.1 localhost\n::1 localhost\n")
	}
	hosts = fmt.Appendf(hosts, "127.0.1.1 %s\n", hostname)

	loans := []Loan{
		{"etc/resolv.conf", resolv, 0o644},
		{"etc/hosts", hosts, 0o644},
		{"usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n"), 0o755},
	}
	scripts, err := standInsFor(tree, "unbooted")
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	if err := tree.Close(); err != nil {
		return nil, err
	}
	return give(root, slices.Concat(loans, scripts, more))
}

// LendToMachine gives the tree at root, from which a machine was booted, its stand-ins
// and more, and returns what takes them back.
func LendToMachine(root string, more ...Loan) (takeBack func() error, err error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	scripts, err := standInsFor(tree, "booted")
	if err := errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	return give(root, append(scripts, more...))
}

// give puts loans into a tree, and returns what takes them back.
func give(root string, loans []Loan) (takeBack func() error, err error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	var given []Loan
	takeBack = func() error {
		var all error
		for _, loan := range given {
			all = errors.Join(all, loan.takeBack(tree))
		}
		return errors.Join(all, tree.Close())
	}
	for _, loan := range loans {
		if err := loan.give(tree); err != nil {
			return nil, errors.Join(fmt.Errorf("lend /%s: %w", loan.Path, err), takeBack())
		}
		given = append(given, loan)
	}
	return takeBack, nil
}

// give puts the file in place. Its directory may be missing: tools that build
// trees by hand leave out what they do not need.
func (l Loan) give(tree *os.Root) error {
	if err := tree.MkdirAll(path.Dir(l.Path), 0o755); err != nil {
		return err
	}
	if err := tree.Rename(l.Path, l.Path+aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return WriteFile(tree, l.Path, l.Content, l.Mode)
}

// takeBack puts the tree's own file back, or its absence.
func (l Loan) takeBack(tree *os.Root) error {
	info, err := tree.Lstat(l.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unchanged := false
	if err == nil && info.Mode().IsRegular() {
		now, err := tree.ReadFile(l.Path)
		if err != nil {
			return err
		}
		unchanged = bytes.Equal(now, l.Content)
	}
	if !unchanged {
		return removeIfThere(tree, l.Path+aside)
	}
	err = tree.Rename(l.Path+aside, l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		err = tree.Remove(l.Path)
	}
	return err
}

// WriteFile writes a file of a tree, with a mode that the umask does not change.
func WriteFile(tree *os.Root, path string, content []byte, mode fs.FileMode) error {
	if err := tree.WriteFile(path, content, mode); err != nil {
		return err
	}
	return tree.Chmod(path, mode)
}

// removeIfThere removes a file or a link of the tree; absence is success.
func removeIfThere(tree *os.Root, path string) error {
	err := tree.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
