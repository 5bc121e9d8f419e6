package limits

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/size"
)

// Usage is what a machine has used since it was made.
type Usage struct {
	Elapsed   time.Duration `json:"elapsed,omitempty"`
	Processor time.Duration `json:"processor,omitempty"`
	// Memory is the peak in bytes, including the files that the kernel cached for it; 0 if it is
	// not known, as before Linux 5.19.
	Memory uint64 `json:"memory,omitempty"`
	// Written is how many bytes it has written to a disk so far; 0 if that is not counted.
	Written uint64 `json:"written,omitempty"`
}

// UsageOf reads what a machine has used. elapsed is the machine's age.
func UsageOf(cgroup string, elapsed time.Duration) (Usage, error) {
	stat, err := os.ReadFile(filepath.Join(root, cgroup, "cpu.stat"))
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Elapsed: elapsed}
	for line := range bytes.Lines(stat) {
		if number, is := bytes.CutPrefix(line, []byte("usage_usec ")); is {
			u.Processor = time.Duration(parseNumber(number)) * time.Microsecond
		}
	}
	u.Memory, _ = readNumber(cgroup, "memory.peak")
	if io, err := os.ReadFile(filepath.Join(root, cgroup, "io.stat")); err == nil {
		u.Written = written(io)
	}
	return u, nil
}

// written finds in io.stat (cgroup-v2.rst) how much went to the disk that was
// written to most. Their sum would count twice what passes through one disk to
// another, as with LVM.
func written(stat []byte) (most uint64) {
	for line := range bytes.Lines(stat) {
		for word := range bytes.FieldsSeq(line) {
			if number, is := bytes.CutPrefix(word, []byte("wbytes=")); is {
				most = max(most, parseNumber(number))
			}
		}
	}
	return most
}

// String is the line in the job's log.
func (u Usage) String() string { return u.Of("job") }

// Of is the line on something else than the job's own machine.
func (u Usage) Of(what string) string {
	words := []string{duration(u.Elapsed), "processor " + duration(u.Processor)}
	if u.Memory > 0 {
		words = append(words, "memory "+size.MiB(u.Memory)+" at most")
	}
	if u.Written > 0 {
		words = append(words, size.MiB(u.Written)+" written to disk")
	}
	return what + ": " + strings.Join(words, ", ")
}

// duration words a time with as many digits as a person wants of it.
func duration(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
