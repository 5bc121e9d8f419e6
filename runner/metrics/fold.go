package metrics

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
)

// Number is a number of a family.
type Number struct {
	Family string   `json:"family"`
	Labels []string `json:"labels,omitempty"`
	// Value is the number; of a histogram, the sum of what was observed.
	Value float64 `json:"value"`
	// Counts are a histogram's: how many values were observed in each of the family's
	// buckets, and at the end, how many beyond.
	Counts []uint64 `json:"counts,omitempty"`
}

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

// mostRecord bounds a line of the records, in bytes.
const mostRecord = 64 << 10

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

// sums are the numbers of some families.
type sums struct {
	families []*Family
	images   []string
	of       map[string]*Number
}

// newSums begins with zero for all numbers that there can be, but for gauges, which are not
// known: Prometheus does not see a counter's first step that begins with one.
func newSums(families []*Family, images []string) *sums {
	s := &sums{families: families, images: images, of: map[string]*Number{}}
	for _, f := range families {
		if f.Kind == Gauge {
			continue
		}
		for _, labels := range f.all(images) {
			s.number(f, labels)
		}
	}
	return s
}

// find returns the family of a name that takes these labels, or nil.
func (s *sums) find(name string, labels []string) *Family {
	at := slices.IndexFunc(s.families, func(f *Family) bool { return f.Name == name })
	if at < 0 || !s.families[at].takes(labels, s.images) {
		return nil
	}
	return s.families[at]
}

func (s *sums) number(f *Family, labels []string) *Number {
	key := strings.Join(append([]string{f.Name}, labels...), "\x00")
	if s.of[key] == nil {
		s.of[key] = &Number{Family: f.Name, Labels: labels}
		if f.Kind == Histogram {
			s.of[key].Counts = make([]uint64, len(f.Buckets)+1)
		}
	}
	return s.of[key]
}

// restore takes a number over from the totals, unless its family has other buckets by now.
func (s *sums) restore(old Number) {
	f := s.find(old.Family, old.Labels)
	if f == nil {
		return
	}
	if number := s.number(f, old.Labels); len(number.Counts) == len(old.Counts) {
		number.Value, number.Counts = old.Value, old.Counts
	}
}

// addFile adds a file of records. Lines that are no records are left out: a full disk or a
// power cut may have spoiled them.
func (s *sums) addFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for lines := bufio.NewReaderSize(file, mostRecord); ; {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil // what is not a whole line was cut short
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return err
		}
		var samples []Sample
		if json.Unmarshal(line, &samples) == nil {
			for _, sample := range samples {
				s.add(sample)
			}
		}
	}
}

func (s *sums) add(sample Sample) {
	f := s.find(sample.Family, sample.Labels)
	if f == nil || f.Kind != Gauge && sample.Value < 0 {
		return
	}
	number := s.number(f, sample.Labels)
	if math.IsInf(number.Value+sample.Value, 0) { // JSON has none
		return
	}
	switch f.Kind {
	case Gauge:
		number.Value = sample.Value
	case Counter:
		number.Value += sample.Value
	case Histogram:
		number.Value += sample.Value
		bucket, _ := slices.BinarySearch(f.Buckets, sample.Value)
		number.Counts[bucket]++
	}
}

// numbers are all of them, in the order of the families and of their labels.
func (s *sums) numbers() (all []Number) {
	for _, f := range s.families {
		begin := len(all)
		for _, number := range s.of {
			if number.Family == f.Name {
				all = append(all, *number)
			}
		}
		slices.SortFunc(all[begin:], func(a, b Number) int { return slices.Compare(a.Labels, b.Labels) })
	}
	return all
}
