package metrics

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/lock"
)

// Store keeps numbers in a directory:
//
//	records       what stages appended and nobody folded yet, a line for each stage
//	records.TIME  the same, while it is folded
//	totals        what is folded
//	lock          locked by who folds
type Store struct{ Dir string }

// recordTries is how often a stage tries to append: who folds holds the lock of the records
// for a rename, some microseconds.
const recordTries = 200

// Record appends samples. All of them are counted, or none. It waits for nobody: the lock is
// shared with other stages, and who folds has it only for a moment. The kernel releases it
// when the process ends, however it ends.
func (s Store) Record(samples ...Sample) error {
	line, err := json.Marshal(samples)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(s.Dir)); err != nil {
		return err // there is no state directory
	}
	file, err := lock.TryFile(s.records(), lock.Shared)
	for try := 0; errors.Is(err, lock.ErrBusy) && try < recordTries; try++ {
		time.Sleep(50 * time.Microsecond)
		file, err = lock.TryFile(s.records(), lock.Shared)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := unix.FcntlInt(file.Fd(), unix.F_SETFL, unix.O_APPEND); err != nil {
		return err
	}
	// One write, so that lines of others stay whole: open(2), O_APPEND. It begins a new line,
	// because the one before may have been cut short by a full disk.
	_, err = file.Write(append(append([]byte{'\n'}, line...), '\n'))
	return err
}

// IsLarge says whether so much is recorded that somebody should fold it: on a host that
// nobody watches, no timer does.
func (s Store) IsLarge() bool {
	info, err := os.Stat(s.records())
	return err == nil && info.Size() > 1<<20
}

func (s Store) records() string { return filepath.Join(s.Dir, "records") }
