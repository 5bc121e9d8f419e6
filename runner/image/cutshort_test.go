package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// countdown is a context that is cancelled when its end was asked for a number of times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// filesIn are the names of all that is in a tree.
func filesIn(t *testing.T, root string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, root))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestAPruneOnAFullDiskThatIsCutShortLeavesNoHalfOfAGeneration(t *testing.T) {
	for names, cut := 0, true; cut; names++ {
		s, _ := fakeStore(t)
		if err := errors.Join(os.MkdirAll(s.StateDir, 0o700), unix.Mount("tmpfs", s.StateDir, "tmpfs", 0, "nr_inodes=500")); err != nil {
			t.Skip("needs to mount: ", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(s.StateDir, unix.MNT_DETACH) })
		bootable(t, filepath.Join(s.StateDir, "sid"))
		current, err := s.Edit(t.Context(), "sid", func(context.Context, string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		whole := filesIn(t, current.Path)
		// Without an inode there is no trash, so the tree is removed where it is.
		if err := os.RemoveAll(filepath.Join(s.StateDir, ".trash")); err != nil {
			t.Fatal(err)
		}
		for i, err := 0, error(nil); err == nil; i++ {
			err = os.WriteFile(filepath.Join(s.StateDir, ".logs", fmt.Sprint(i)), nil, 0o600)
		}
		s.InUse = func(string) bool { return false }
		_, _, err = s.discard(&countdown{context.Background(), names}, "sid", 1)
		if cut = err != nil; names > 60 || !cut && names < 5 {
			t.Fatalf("%d names, %v", names, err)
		}
		all, err := s.Generations("sid")
		if err != nil {
			t.Fatal(err)
		}
		for _, generation := range all {
			if got := filesIn(t, generation.Path); got != whole {
				t.Errorf("cut short after %d names, %s has only\n%s", names, generation.Name, got)
			}
		}
		for _, l := range find(t, s) {
			if err := l.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		}
		wantTidy(t, s, fmt.Sprint("name ", names))
	}
}
