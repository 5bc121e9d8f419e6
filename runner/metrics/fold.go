package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
)

// totals is the content of the file with that name.
type totals struct {
	Format int `json:"format"`
	// Folded are the files of records that the last fold added: one that is killed before it
	// removes them must not count them twice.
	Folded  []string `json:"folded"`
	Numbers []Number `json:"numbers"`
}

// totalsFormat is raised when old programs must not read what new ones write.
const totalsFormat = 1

// Fold folds what is recorded into the totals of some families, and returns them, also those
// that are still zero. Samples of other families, and with other values of labels, are
// dropped: such as those of images that no longer exist. Totals that cannot be read are put
// aside and begin anew; broken says why. What is recorded while another process folds, or a
// full disk keeps from being folded, is in what is returned all the same.
func (s Store) Fold(ctx context.Context, families []*Family, images []string) (numbers []Number, broken error, err error) {
	if _, err := os.Stat(filepath.Dir(s.Dir)); errors.Is(err, fs.ErrNotExist) {
		return newSums(families, images).numbers(), nil, nil // no state directory yet
	}
	held, err := lock.File(ctx, filepath.Join(s.Dir, "lock"), lock.Exclusive)
	if err != nil {
		return nil, nil, err
	}
	defer held.Close()
	t, broken := s.read()
	sums := newSums(families, images)
	for _, number := range t.Numbers {
		sums.restore(number)
	}
	files, err := s.takeAside(ctx)
	if err != nil {
		return nil, broken, err
	}
	for _, path := range files {
		if slices.Contains(t.Folded, filepath.Base(path)) {
			continue // a fold before was killed here
		}
		if err := sums.addFile(path); err != nil {
			return nil, broken, err
		}
	}
	numbers = sums.numbers()
	if len(files) == 0 {
		return numbers, broken, nil
	}
	t = totals{Format: totalsFormat, Numbers: numbers}
	for _, path := range files {
		t.Folded = append(t.Folded, filepath.Base(path))
	}
	if err := s.write(t); err != nil {
		return numbers, broken, nil // the records stay, and are folded when the disk has room
	}
	fault.Here("metrics: totals written")
	for _, path := range files {
		if err := os.Remove(path); err != nil {
			return numbers, broken, err
		}
	}
	return numbers, broken, nil
}

// read reads the totals. Those that cannot be read are moved aside.
func (s Store) read() (t totals, broken error) {
	path := filepath.Join(s.Dir, "totals")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return totals{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err == nil && t.Format != totalsFormat {
		err = fmt.Errorf("format %d, this program reads %d", t.Format, totalsFormat)
	}
	if err == nil {
		return t, nil
	}
	broken = fmt.Errorf("counters begin anew, as %s cannot be read, which is kept as totals.broken: %w", path, err)
	return totals{}, errors.Join(broken, os.Rename(path, path+".broken"))
}

func (s Store) write(t totals) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(s.Dir, "totals"), append(text, '\n'), 0o600)
}

// takeAside gives the records a name of their own, which no stage appends to, and returns all
// that are to be folded, the oldest first.
func (s Store) takeAside(ctx context.Context) ([]string, error) {
	if _, err := os.Stat(s.records()); err == nil {
		records, err := lock.File(ctx, s.records(), lock.Exclusive)
		if err != nil {
			return nil, err
		}
		// Stages hold the lock while they append, and look whether the file has its name yet.
		err = os.Rename(s.records(), fmt.Sprintf("%s.%020d", s.records(), time.Now().UnixNano()))
		fault.Here("metrics: records taken aside")
		records.Close()
		if err != nil {
			return nil, err
		}
	}
	files, err := filepath.Glob(s.records() + ".*")
	slices.Sort(files)
	return files, err
}
