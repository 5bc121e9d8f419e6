package image

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"nspawn-runner/runner/host"
)

// keptLogs is how many logs stay of each image.
const keptLogs = 20

// buildLog takes what the programs of a build print: all of it into a file, as
// it comes to the store's Verbose, and the last lines into memory, for the
// error.
type buildLog struct {
	mu      sync.Mutex // two programs can run at once
	path    string
	file    *os.File
	verbose io.Writer
	line    []byte   // what came since the last end of a line
	tail    []string // the last lines, oldest first
}

// hasColours says whether what is written is shown on a terminal.
func (l *buildLog) hasColours() bool { return host.IsTerminal(l.verbose) }

// openLog begins the log of a build and removes the oldest ones of the image.
func (s *Store) openLog(generation Generation) (*buildLog, error) {
	dir := filepath.Join(s.StateDir, ".logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	image, stamp := filepath.Split(generation.Name)
	image = strings.TrimSuffix(image, "/")
	log := &buildLog{path: filepath.Join(dir, image+"-"+stamp+".log"), verbose: s.Verbose}
	var err error
	// Two failed builds in one second share a stamp, and so a log.
	log.file, err = os.OpenFile(log.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return log, forgetLogs(dir, image)
}

// forgetLogs removes the oldest logs of an image.
func forgetLogs(dir, image string) error {
	entries, err := os.ReadDir(dir) // sorted, so oldest first
	if err != nil {
		return err
	}
	var logs []string
	for _, entry := range entries {
		// The logs of base-image begin like those of base: parse the stamp.
		stamp, ours := strings.CutPrefix(entry.Name(), image+"-")
		if _, err := time.Parse(stampFormat+".log", stamp); ours && err == nil {
			logs = append(logs, entry.Name())
		}
	}
	for _, name := range logs[:max(0, len(logs)-keptLogs)] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

const (
	maxLine = 64 << 10 // longer lines are broken up
	maxTail = 50
)

func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verbose != nil {
		// Whoever looks on may go away; the build goes on.
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
func (l *buildLog) begin(step string) {
	fmt.Fprintf(l, "== %s\n", step)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = nil
}

// last returns up to n lines, the last ones of the step that are not empty.
func (l *buildLog) last(n int) []string {
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
func (l *buildLog) take(line []byte) error {
	line = escapes.ReplaceAll(line, nil)
	l.tail = append(l.tail, strings.TrimSpace(string(line)))
	if len(l.tail) > maxTail {
		l.tail = l.tail[1:]
	}
	_, err := l.file.Write(line)
	return err
}

// Close writes the rest.
func (l *buildLog) Close() error {
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
	// noise is no complaint: eatmydata's library is not in the new tree.
	noise = regexp.MustCompile(`^ERROR: ld\.so: `)
)

// reason adds to err, a program's exit status, the line of its output that
// explains it best: the last complaint, else the last line.
func (l *buildLog) reason(err error) error {
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

// mentions says whether one of the last lines has these words in it.
func (l *buildLog) mentions(words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.tail, func(line string) bool { return strings.Contains(line, words) })
}
