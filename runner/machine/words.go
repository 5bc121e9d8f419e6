package machine

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"

	"nspawn-runner/runner/printable"
)

// lastWords prints what a machine's services and programs have said last.
const lastWords = "journalctl --quiet --no-pager --no-hostname --output=short --lines=100\n"

// mostWords bounds what is read of it, in bytes.
const mostWords = 64 << 10

// LastWords are the last lines that a job's machine has said, and which of its units
// failed: what a person looks for who wonders what became of it.
func (s Store) LastWords(ctx context.Context, job string, role Role) (lines []string) {
	record, err := s.RecordOf(job, role)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*reasonTimeout)
	defer cancel()
	if !record.up() {
		return consoleTail(ctx, record)
	}
	words := Tail{Max: mostWords}
	script := Script{Source: strings.NewReader(lastWords), Label: "journal", Stdout: &words, Stderr: io.Discard, Role: role}
	if _, err := s.Exec(ctx, job, func(Record) error { return nil }, script); err != nil {
		return consoleTail(ctx, record)
	}
	return append(insideReasons(ctx, record), lastOf(telling(words.lines()))...)
}

// telling are the lines of a journal that say what went wrong: without their times, without
// what its service manager says of what went well and the journal of itself, and without what
// this program executes.
func telling(journal []string) (lines []string) {
	for _, line := range journal {
		line = line[min(len(line), len("Jan 02 15:04:05 ")):]
		if line != "" && tells(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// tells says so of one line, which begins with who said it.
func tells(line string) bool {
	words, systemds := strings.CutPrefix(line, "systemd[1]: ")
	return !strings.Contains(line, unitPrefix) && !strings.HasPrefix(line, "systemd-journald[") &&
		(!systemds || strings.Contains(words, "ailed") || strings.Contains(words, "exited"))
}

// lastOf are the last twelve of some lines.
func lastOf(lines []string) []string { return lines[max(0, len(lines)-12):] }

// Tail keeps the last bytes that are written to it.
type Tail struct {
	// Max is how many.
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

// Last are its last twelve lines that have something in them, fit to be printed.
func (t *Tail) Last() []string { return lastOf(t.lines()) }

// lines are all that it has kept.
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
