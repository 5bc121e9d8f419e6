package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/image/debian"
)

// Record says how a generation came to be. It lies beside the tree, as
// STAMP.json, because the tree itself is the image's. Chroots of the Python
// original have none, and those of early versions: then it is empty but for what
// the stamp says.
type Record struct {
	Format int       `json:"format"`
	Built  time.Time `json:"built,omitzero"` // when it was complete
	How    string    `json:"how,omitempty"`  // one of the constants below
	Suite  string    `json:"suite,omitempty"`
	// Playbook is what ran last in this tree, or in one it is a copy of.
	Playbook *PlaybookRecord `json:"playbook,omitempty"`
	// Why says what a maintenance changed, so that there is this generation.
	Why string `json:"why,omitempty"`
	// Replaced is the name of the generation that was current until this one
	// was. It is not always the next older one: that may have been rolled back.
	Replaced string `json:"replaced,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"` // on disk, shared with other trees or not
	// Maintained is when Playbook last ran through: here, in a tree that this is
	// a copy of, or in a copy of this that turned out to be no better.
	Maintained time.Time `json:"maintained,omitzero"`
}

// PlaybookRecord is a playbook as it was when it ran.
type PlaybookRecord struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // of the file; not of the roles beside it
}

// How a generation was made.
const (
	byBootstrap   = "bootstrap"
	byMaintenance = "maintenance"
	byLogin       = "login"
)

// recordFormat is raised when old programs must not read what new ones write.
const recordFormat = 1

const recordSuffix = ".json"

// recordPath is where the record of a generation lies: beside the tree, also for
// one that is still a plain directory NAME.
func (s *Store) recordPath(generation string) string {
	return filepath.Join(s.StateDir, ".generations", generation+recordSuffix)
}

// Record reads the record of a generation. A missing one is not an error.
func (s *Store) Record(generation Generation) (Record, error) {
	_, stamp, _ := strings.Cut(generation.Name, "/")
	born, _ := time.Parse(stampFormat, stamp) // zero for a chroot of the original
	unknown := Record{Built: born}
	path := s.recordPath(generation.Name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return unknown, nil
	}
	if err != nil {
		return unknown, fmt.Errorf("read the record of generation %s: %w", generation.Name, err)
	}
	var record Record
	if err := json.Unmarshal(text, &record); err != nil {
		return unknown, fmt.Errorf("record %s: %w", path, err)
	}
	if record.Format > recordFormat {
		return unknown, fmt.Errorf("record %s: format %d is of a newer nspawn-runner", path, record.Format)
	}
	return record, nil
}

// writeRecord needs the lock .build, which makes its temporary file the only one.
func (s *Store) writeRecord(generation Generation, record Record) error {
	record.Format = recordFormat
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	path := s.recordPath(generation.Name)
	next := filepath.Join(filepath.Dir(path), ".record")
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return err
	}
	if err := flush(next, unix.Fsync); err != nil {
		return err
	}
	fault.Here("image: next record written")
	return os.Rename(next, path)
}

// removeRecord removes the record of a generation whose tree is gone.
func (s *Store) removeRecord(generation string) error {
	err := os.Remove(s.recordPath(generation))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// LastMaintained is when a generation's playbook last ran through. Without one, it is as
// old as its tree.
func (r Record) LastMaintained() time.Time {
	if r.Maintained.IsZero() {
		return r.Built
	}
	return r.Maintained
}

// OtherSuite says whether a generation was made of another suite than a playbook wants now,
// "" for any. A maintenance runs the playbook on a copy, so it does not change the suite.
func (r Record) OtherSuite(wanted string) bool {
	names := map[string]string{"sid": debian.DefaultSuite} // two for one suite
	return wanted != "" && r.Suite != "" && cmp.Or(names[wanted], wanted) != cmp.Or(names[r.Suite], r.Suite)
}

// Stale says whether a generation's last maintenance is longer ago than the limit; 0 is
// none. When it was is not known of a chroot of the Python original.
func (r Record) Stale(limit time.Duration) bool {
	last := r.LastMaintained()
	return limit > 0 && !last.IsZero() && time.Since(last) > limit
}
