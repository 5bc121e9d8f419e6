package gitlab

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// jobLog is the job's log as GitLab shows it: the secrets masked, cut at the
// limit, otherwise raw.
type jobLog struct {
	sink   io.Writer // gets it live, or nil
	onLine func(string)
	limit  int

	mu     sync.Mutex
	masker masker
	text   strings.Builder
	line   strings.Builder // the unfinished one
	full   bool
	closed bool
}

// Write takes a driver's output, from two pipes at once. It never fails: past
// its limit, and when the job is over, the log still drains the pipes.
func (l *jobLog) Write(output []byte) (int, error) {
	l.mu.Lock()
	lines := l.add(l.masker.mask(string(output)))
	l.mu.Unlock()
	l.announce(lines)
	return len(output), nil
}

// printf adds a line of gitlab-runner's own.
func (l *jobLog) printf(format string, args ...any) {
	fmt.Fprintf(l, format+reset+"\n", args...)
}

// flush ends a stage: what could have become a secret did not.
func (l *jobLog) flush() {
	l.mu.Lock()
	lines := l.add(l.masker.rest())
	l.mu.Unlock()
	l.announce(lines)
}

// close ends the log. Processes that were left may still write to it.
func (l *jobLog) close() string {
	l.flush()
	l.mu.Lock()
	l.closed = true
	last := l.line.String()
	l.mu.Unlock()
	if last != "" {
		l.announce([]string{last})
	}
	return l.text.String()
}

// add appends to the log and returns the lines that this completes.
func (l *jobLog) add(text string) []string {
	if l.closed || l.full {
		return nil
	}
	if l.text.Len()+len(text) > l.limit {
		l.full = true
		text = text[:l.limit-l.text.Len()] + fmt.Sprintf("\n%sJob's log exceeded limit of %d bytes.\n"+
			"Job execution will continue but no more output will be collected.%s\n", yellow, l.limit, reset)
	}
	l.text.WriteString(text)
	if l.sink != nil {
		io.WriteString(l.sink, text) // a reader who left does not stop the job
	}
	var lines []string
	for {
		before, after, complete := strings.Cut(text, "\n")
		l.line.WriteString(before)
		if !complete {
			return lines
		}
		lines = append(lines, l.line.String())
		l.line.Reset()
		text = after
	}
}

// announce calls the hook, without the lock, as it may well stop the job.
func (l *jobLog) announce(lines []string) {
	if l.onLine == nil {
		return
	}
	for _, line := range lines {
		l.onLine(Plain(line))
	}
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]|\r`)

// Plain is a text of the job's log without its colours.
func Plain(text string) string { return escapes.ReplaceAllString(text, "") }

// masker hides secrets in a stream. It holds back what could be the beginning
// of one, until it knows.
type masker struct {
	secrets []string
	held    string
}

func (m *masker) mask(text string) string {
	text = m.held + text
	for _, s := range m.secrets {
		text = strings.ReplaceAll(text, s, "[MASKED]")
	}
	hold := 0
	for _, s := range m.secrets {
		for n := min(len(s)-1, len(text)); n > hold; n-- {
			if strings.HasSuffix(text, s[:n]) {
				hold = n
			}
		}
	}
	m.held = text[len(text)-hold:]
	return text[:len(text)-hold]
}

func (m *masker) rest() string {
	text := m.held
	m.held = ""
	return text
}

// lineWriter turns a stream into lines of gitlab-runner's own log.
type lineWriter struct {
	sink   io.Writer
	format string

	mu   sync.Mutex
	rest string
}

// Write passes on every line that the output completes.
func (w *lineWriter) Write(output []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest += string(output)
	for {
		line, after, complete := strings.Cut(w.rest, "\n")
		if !complete {
			return len(output), nil
		}
		fmt.Fprintf(w.sink, w.format, line)
		w.rest = after
	}
}

// close writes a last line that nobody ended.
func (w *lineWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rest != "" {
		fmt.Fprintf(w.sink, w.format, w.rest)
	}
}

// lockedWriter lets a driver's two pipes write to one log.
type lockedWriter struct {
	mu     sync.Mutex
	sink   io.Writer
	closed bool
}

// Write writes as one, and after the job's end nowhere.
func (w *lockedWriter) Write(output []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(output), nil
	}
	return w.sink.Write(output)
}

func (w *lockedWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}
