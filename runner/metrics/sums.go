package metrics

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
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

// mostRecord bounds a line of the records, in bytes.
const mostRecord = 64 << 10

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
