package machine

import (
	"bytes"
	"strings"
	"sync"

	"nspawn-runner/runner/printable"
)

// lastOf returns the last twelve lines.
func lastOf(lines []string) []string { return lines[max(0, len(lines)-12):] }

// Tail keeps the last bytes that are written to it.
type Tail struct {
	// Max is how many bytes.
	Max int

	mu   sync.Mutex // a script has two outputs
	text []byte
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[max(0, len(p)-t.Max):]...)
	if len(t.text) > 2*t.Max {
		t.text = bytes.Clone(t.text[len(t.text)-t.Max:])
	}
	return len(p), nil
}

// Last returns the last twelve lines that are not empty, in a printable form.
func (t *Tail) Last() []string { return lastOf(t.lines()) }

// lines returns all lines that it has kept.
func (t *Tail) lines() (lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for line := range strings.Lines(string(t.text)) {
		if line = printable.Line(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
