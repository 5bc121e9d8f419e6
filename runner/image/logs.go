package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/image/build"
)

// maxLogs is how many logs stay of each image.
const maxLogs = 20

// openLog begins the log of a build and removes the oldest ones of the image.
func (s *Store) openLog(generation Generation) (*build.Log, error) {
	dir := filepath.Join(s.StateDir, ".logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	image, stamp, _ := strings.Cut(generation.Name, "/")
	log, err := build.OpenLog(filepath.Join(dir, fmt.Sprintf("%s-%s.log", image, stamp)), s.Verbose)
	if err != nil {
		return nil, err
	}
	return log, pruneLogs(dir, image)
}

// pruneLogs removes the oldest logs of an image.
func pruneLogs(dir, image string) error {
	entries, err := os.ReadDir(dir) // sorted, so oldest first
	if err != nil {
		return err
	}
	var logs []string
	for _, entry := range entries {
		// The logs of base-image begin like those of base: parse the stamp.
		stamp, ours := strings.CutPrefix(entry.Name(), image+"-")
		if _, err := time.Parse(stampFormat+".log", stamp); ours && err == nil {
			logs = append(logs, entry.Name())
		}
	}
	for _, name := range logs[:max(0, len(logs)-maxLogs)] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
