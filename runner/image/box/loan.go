package box

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// Loan is a file that a tree has only while commands run in it.
type Loan struct {
	Path    string // below the root
	Content []byte
	Mode    fs.FileMode
}

// aside is the suffix of the tree's own file, if it has one, meanwhile.
const aside = ".nspawn-runner"

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
