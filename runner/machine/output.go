package machine

import (
	"encoding/binary"
	"os"
	"path/filepath"
)

// outputFile is a file in the directory of a machine with a program. It has the program's last output.
const outputFile = "output"

// ring is a file that keeps the last bytes that were written to it. It begins with the number of all bytes
// that were ever written. The place of a byte follows from its number, so readers need nothing else.
type ring struct {
	file  *os.File
	total uint64
}

const (
	// ringSize is how many bytes a ring keeps.
	ringSize = 64 << 10
	// ringHead is how many bytes the number has.
	ringHead = 8
)

func newRing(path string) (*ring, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &ring{file: file}, nil
}

// Write keeps what fits. It never fails: a full disk must not keep the program from writing.
func (r *ring) Write(p []byte) (int, error) {
	length := len(p)
	if skip := len(p) - ringSize; skip > 0 {
		r.total += uint64(skip)
		p = p[skip:]
	}
	for len(p) > 0 {
		at := r.total % ringSize
		n := min(uint64(len(p)), ringSize-at)
		_, _ = r.file.WriteAt(p[:n], int64(ringHead+at))
		r.total += n
		p = p[n:]
	}
	var head [ringHead]byte
	binary.LittleEndian.PutUint64(head[:], r.total)
	_, _ = r.file.WriteAt(head[:], 0)
	return length, nil
}

// output returns what the program of a machine has written since a byte. Bytes are numbered from 0, the
// first one that it ever wrote. skipped is how many of the wanted bytes are not kept any more, next the
// number of the byte that the program writes next. A machine without a program has no output.
func (s Store) output(record Record, since uint64) (text []byte, skipped, next uint64) {
	data, err := os.ReadFile(filepath.Join(s.dir(record.ID), outputFile))
	if err != nil || len(data) < ringHead {
		return nil, 0, since
	}
	total := binary.LittleEndian.Uint64(data)
	kept := data[ringHead:]
	first := since
	if total > ringSize {
		first = max(since, total-ringSize)
	}
	for n := first; n < total; n++ {
		if at := n % ringSize; at < uint64(len(kept)) {
			text = append(text, kept[at])
		}
	}
	return text, first - since, max(total, since)
}

// programWords returns the last lines that a program has written.
func (s Store) programWords(record Record) []string {
	words := Tail{Max: ringSize}
	text, _, _ := s.output(record, 0)
	_, _ = words.Write(text)
	return words.Last()
}
