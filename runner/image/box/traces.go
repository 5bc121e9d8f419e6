package box

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
)

// Traces are what the start of a machine leaves in a tree that is its root: names and
// resolver of this boot, places to mount something on. What is still as the start left
// it in the end goes; what was changed since is the image's.
type Traces struct {
	tree *os.Root
	all  []trace
}

// trace is a path at which there may be one.
type trace struct {
	path string
	// missing are the directories above that were not there, the lowest first.
	missing []string
	// was is what lay there before the start, is what lay there after.
	was, is imprint
}

// imprint is what lies at a path. One that cannot be read is not touched.
type imprint struct {
	mode    fs.FileMode // of a regular file, a link or a directory
	content string      // of the first two
	there   bool
	known   bool
}

// OpenTraces opens the tree at root, from which no machine runs yet.
func OpenTraces(root string) (*Traces, error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	return &Traces{tree: tree}, nil
}

// Close closes the tree.
func (m *Traces) Close() error { return m.tree.Close() }

// Before looks at paths, relative to the root, that a start is about to touch.
func (m *Traces) Before(paths []string) {
	for _, name := range paths {
		trace := trace{path: name, was: imprintOf(m.tree, name)}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, err := m.tree.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
				trace.missing = append(trace.missing, dir)
			}
		}
		m.all = append(m.all, trace)
	}
}

// After looks at them when the machine has started.
func (m *Traces) After() {
	for i := range m.all {
		m.all[i].is = imprintOf(m.tree, m.all[i].path)
	}
}

// TakeBack puts back what was there before the start.
func (m *Traces) TakeBack() error {
	var failed error
	for _, trace := range slices.Backward(m.all) {
		failed = errors.Join(failed, trace.takeBack(m.tree))
	}
	return failed
}

func (m trace) takeBack(tree *os.Root) error {
	now := imprintOf(tree, m.path)
	if !m.was.known || !now.known || !now.there || now == m.was || now != m.is {
		return nil
	}
	if err := tree.Remove(m.path); err != nil {
		if now.mode.IsDir() { // it has something in it
			return nil
		}
		return err
	}
	if m.was.there {
		return m.was.put(tree, m.path)
	}
	for _, dir := range m.missing {
		if tree.Remove(dir) != nil {
			break // there is more in it
		}
	}
	return nil
}

// imprintOf looks at a path.
func imprintOf(tree *os.Root, name string) imprint {
	info, err := tree.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return imprint{known: true}
	}
	if err != nil {
		return imprint{}
	}
	i := imprint{mode: info.Mode(), there: true}
	switch {
	case i.mode.IsDir():
	case i.mode.IsRegular() && info.Size() < 1<<20:
		var text []byte
		text, err = tree.ReadFile(name)
		i.content = string(text)
	case i.mode&fs.ModeSymlink != 0:
		i.content, err = tree.Readlink(name)
	default:
		return imprint{}
	}
	i.known = err == nil
	return i
}

// put makes at a path what the imprint is of.
func (i imprint) put(tree *os.Root, name string) error {
	switch {
	case i.mode.IsDir():
		return tree.Mkdir(name, i.mode.Perm())
	case i.mode.IsRegular():
		return WriteFile(tree, name, []byte(i.content), i.mode.Perm())
	}
	return tree.Symlink(i.content, name)
}
