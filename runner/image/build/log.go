package build

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Log takes what the programs of a build print: all of it into a file, and the last lines
// into memory, for the error.
type Log struct {
	mu      sync.Mutex // two programs can run at once
	Path    string     // of the file
	file    *os.File
	verbose io.Writer
	line    []byte   // what came since the last end of a line
	tail    []string // the last lines, oldest first
}

// OpenLog opens the log at path, or begins it. What is written also goes to verbose, as
// it comes, if that is set.
func OpenLog(path string, verbose io.Writer) (*Log, error) {
	// Two failed builds in one second share a stamp, and so a log.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &Log{Path: path, file: file, verbose: verbose}, nil
}

const (
	maxLine = 64 << 10 // longer lines are broken up
	maxTail = 50
)

// Write writes what a program printed.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verbose != nil {
		// A reader may go away; the build goes on.
		_, _ = l.verbose.Write(p)
	}
	l.line = append(l.line, p...)
	for {
		end := bytes.IndexByte(l.line, '\n')
		if end < 0 && len(l.line) < maxLine {
			return len(p), nil
		}
		if end < 0 {
			end = maxLine - 1
		}
		if err := l.take(l.line[:end+1]); err != nil {
			return 0, err
		}
		l.line = append(l.line[:0], l.line[end+1:]...)
	}
}

// begin notes that a step begins. What was printed before explains nothing of it.
func (l *Log) begin(step string) {
	fmt.Fprintf(l, "== %s\n", step)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = nil
}

// Last returns up to n lines, the last ones of the step that are not empty.
func (l *Log) Last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, line := range append(l.tail, strings.TrimSpace(string(l.line))) {
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// escapes are colours and other commands to a terminal.
var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// take writes one line to the file.
func (l *Log) take(line []byte) error {
	line = escapes.ReplaceAll(line, nil)
	l.tail = append(l.tail, strings.TrimSpace(string(line)))
	if len(l.tail) > maxTail {
		l.tail = l.tail[1:]
	}
	_, err := l.file.Write(line)
	return err
}

// Close writes the rest.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		_ = l.take(append(l.line, '\n'))
	}
	return l.file.Close()
}

var (
	// complaint begins the line in which apt, dpkg, debootstrap, ansible or
	// systemd-nspawn says what went wrong.
	complaint = regexp.MustCompile(`^(E: |ERROR|\[ERROR\]|FATAL|[Ee]rror: |dpkg: error|Failed to )`)
	// wrapper is a complaint that only says that something else complained.
	wrapper = regexp.MustCompile(`^E: (mmdebstrap failed|setup failed|Some index files|Sub-process|command failed: |chrooted hook |special hook |apt-get .*failed|env |chroot |dpkg )|^I: main\(\) received signal`)
	// noise only looks like a complaint: eatmydata's library is not in the new tree.
	noise = regexp.MustCompile(`^ERROR: ld\.so: `)
)

// reason adds to err, a program's exit status, the line of its output that
// explains it best: the last complaint, else the last line.
func (l *Log) reason(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := ""
	for _, line := range append(l.tail, strings.TrimSpace(string(l.line))) {
		switch {
		case line == "" || noise.MatchString(line):
		case wrapper.MatchString(line):
			last = cmp.Or(last, line)
		case complaint.MatchString(line):
			last = line
		case !complaint.MatchString(last):
			last = line
		}
	}
	if last == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, last)
}

// Mentions says whether one of the last lines has these words in it.
func (l *Log) Mentions(words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.tail, func(line string) bool { return strings.Contains(line, words) })
}
