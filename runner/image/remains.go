package image

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/storage"
)

// clean removes what the build named in the locked .build file has left, unless
// that was published. It comes after each build, and before each build for one
// that was killed.
func (s *Store) clean(ctx context.Context, lock *os.File, name string) error {
	remains, err := s.remains(name)
	if err != nil {
		return err
	}
	for _, path := range remains {
		if stamp := filepath.Base(path); stamp == s.unfinished(name) && s.Halt != nil {
			if err := s.Halt(ctx, name+"/"+stamp); err != nil {
				return err
			}
		}
		if err := storage.Remove(ctx, path); err != nil {
			return err
		}
		fault.Here("image: " + filepath.Base(path) + " of an unpublished generation removed")
	}
	return lock.Truncate(0)
}

// remains lists what a build or a removal has left of an image that is not at
// work any more: it needs the lock .build, or is a guess.
func (s *Store) remains(name string) ([]string, error) {
	dir := s.generations(name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	stamp := s.unfinished(name)
	tree := filepath.Join(dir, stamp)
	current, _ := os.Readlink(filepath.Join(s.StateDir, name))
	if len(stamp) != len(stampFormat) || !filepath.IsLocal(stamp) || filepath.Base(current) == stamp {
		tree = ""
	} else if exists(tree) {
		paths = append(paths, tree)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		stamp, isRecord := strings.CutSuffix(path, recordSuffix)
		switch {
		// Generations are directories: a link among them is a publication that
		// was killed before its swap.
		case entry.Type() == fs.ModeSymlink,
			// A record without its tree: of that, or of a removal that was killed.
			isRecord && (stamp == tree || !exists(stamp)),
			isRest(entry.Name()):
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// unfinished is the stamp of the generation that is being built, if one is.
func (s *Store) unfinished(name string) string {
	text, _ := os.ReadFile(filepath.Join(s.generations(name), ".build"))
	stamp, _, _ := strings.Cut(string(text), "\n")
	return stamp
}

// removeInPlace removes a tree in its directory. First it gives a generation a name that is not that of one, so that no
// part of it counts as a generation, and remains lists the part. The name has the same length, for which most file
// systems need no more room.
func removeInPlace(ctx context.Context, path string) error {
	if stamp := filepath.Base(path); len(stamp) == len(stampFormat) {
		rest := filepath.Join(filepath.Dir(path), "."+stamp[1:])
		if err := storage.Remove(ctx, rest); err != nil { // of a removal that was killed
			return err
		}
		if os.Rename(path, rest) == nil {
			path = rest
		}
	}
	return storage.Remove(ctx, path)
}

// isRest says whether a name is one that removeInPlace gives.
func isRest(name string) bool { return len(name) == len(stampFormat) && name[0] == '.' }
