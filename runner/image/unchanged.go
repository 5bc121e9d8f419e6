package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A maintenance that changed nothing needs no new generation: machines that
// start from the old one start the same. Three things must agree, since each
// alone is blind to something:
//
//   - ansible: no task changed anything. One that failed and was ignored may
//     have, and tasks can be told to say nothing (changed_when: false). What a
//     rescue does is counted, so the failure that it answers is not;
//   - dpkg's list of packages, which such a task may have changed;
//   - apt's lists, which ansible does not count when a package is asked for in
//     the same task. With old ones apt-get install fails in a job, once the
//     mirror has newer versions.
//
// What a task does behind the backs of all three is lost: it is said to be no
// change by whoever wrote it.

// tally is what the callback counted: tasks, on all hosts together.
type tally struct {
	OK, Changed, Ignored int

	known bool
}

// readTally reads the callback's file. Without one nothing is known.
func readTally(path string) tally {
	text, err := os.ReadFile(path)
	if err != nil {
		return tally{}
	}
	var t tally
	t.known = json.Unmarshal(text, &t) == nil
	return t
}

// changed words why a tree may have been changed by the tasks, else it is empty.
func (t tally) changed() string {
	switch {
	case !t.known:
		return "ansible did not say what it changed"
	case t.Changed > 0:
		return fmt.Sprintf("ansible changed something in %d of %d tasks", t.Changed, t.OK)
	case t.Ignored > 0:
		return fmt.Sprintf("%d tasks failed, were ignored, and may have changed something", t.Ignored)
	}
	return ""
}

// compare decides whether the playbook changed anything, and notes why.
func (b *build) compare() {
	why := b.tally.changed()
	if why == "" {
		var err error
		if why, err = differences(b.base.Path, b.generation.Path); err != nil {
			why = "it cannot be compared with the old one: " + err.Error()
		}
	}
	if _, err := os.Readlink(filepath.Join(b.store.StateDir, b.image)); why == "" && err != nil {
		why = "it makes a first generation of a chroot that has none"
	}
	b.record.Why, b.unchanged = why, why == ""
	if b.unchanged {
		why = "no task, no package and no list of apt changed, so nothing is published"
	}
	b.store.note(b.image, why)
	fmt.Fprintf(b.log, "== %s\n", why)
}

// differences looks at what dpkg and apt keep in two trees, and says in what
// they differ; empty if in nothing.
func differences(before, after string) (string, error) {
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
// the mirror's times, so they need not be read. Release files are no part of it:
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

// readIfThere reads a file of a tree; one that is missing is empty.
func readIfThere(tree *os.Root, path string) ([]byte, error) {
	text, err := tree.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// noteMaintained writes on the record of a generation that a maintenance found
// nothing to change, and with which playbook.
func (s *Store) noteMaintained(generation Generation, copied Record) error {
	record, err := s.Record(generation)
	if err != nil {
		return err
	}
	record.Playbook, record.Maintained = copied.Playbook, copied.Maintained
	return s.writeRecord(generation, record)
}
