package machine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"al.essio.dev/pkg/shellescape"

	"nspawn-runner/runner/printable"
)

// A job may want to see what its services say while they run. journalctl reads the journal in each
// machine: it belongs to the job.

const (
	// mostFollowed bounds what a job's log gets of one service, in bytes: GitLab's logs have a few
	// megabytes. mostRead bounds what one stage reads for that.
	mostFollowed = 256 << 10
	mostRead     = 32 << 20
	// mostLine bounds a line of journalctl, which is one JSON object.
	mostLine = 64 << 10
)

// enoughSaid is the last line that a job's log gets of a service that says too much.
var enoughSaid = "(it has said more than " + strconv.Itoa(mostFollowed>>10) + " KiB; the rest is left out)"

// followedFile is a file in a machine's directory. It says how much of the machine's lines was shown.
const followedFile = "followed.json"

type followed struct {
	// Cursor is the journal's name of the last line, Bytes how much has been shown.
	Cursor string `json:"cursor"`
	Bytes  int    `json:"bytes"`
}

// errEnough is the cause if reading a journal ends because enough was shown.
var errEnough = errors.New("enough of it has been shown")

const (
	// followedLag is how long a line may take from a service to this process. followedLagMost bounds
	// how long a stage waits for lines that are on their way.
	followedLag, followedLagMost = 200 * time.Millisecond, time.Second
)

func (s Store) follow(ctx context.Context, r Record, enough <-chan struct{}, show func(line string)) {
	var so followed
	path := filepath.Join(s.dir(r.ID), followedFile)
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &so) != nil {
		so = followed{}
	}
	if so.Bytes >= mostFollowed {
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	out := &journalLines{so: so, end: end, last: time.Now(), prefix: ServicePrefix(r.Aliases), show: show}
	read := "exec journalctl --quiet --no-pager --follow --lines=all --output=json --output-fields=MESSAGE,SYSLOG_IDENTIFIER,_PID"
	if so.Cursor != "" {
		read += " --after-cursor=" + shellescape.Quote(so.Cursor)
	}
	go func() {
		select {
		case <-enough:
		case <-ctx.Done():
			return
		}
		for most := time.Now().Add(followedLagMost); out.isBusy() && time.Now().Before(most); {
			time.Sleep(followedLag / 10)
		}
		end(nil)
	}()
	_, _ = s.Exec(ctx, r.Job, func(Record) error { return nil }, Script{
		Role: r.Role, Label: "journal", Source: strings.NewReader(read + "\n"), Stdout: out, Stderr: io.Discard,
	})
	if data, err := json.Marshal(out.so); err == nil && out.so != so {
		_ = os.WriteFile(path, data, 0o600) // if this fails, lines are shown twice, which does no harm
	}
}

// ServicePrefix returns the prefix of each line of the service with these names in the job's log. It is
// that of gitlab-runner's docker executor.
func ServicePrefix(aliases []string) string {
	return "[service:" + strings.Join(aliases, "-") + "] "
}

// journalLines shows the entries that journalctl writes to it: one JSON object on each line.
type journalLines struct {
	so     followed
	prefix string
	show   func(line string)
	end    func(error)

	read int
	rest []byte // the beginning of a line
	skip bool   // the rest of a line that is too long

	mu   sync.Mutex
	last time.Time // when something came
}

// isBusy says whether something came within followedLag.
func (j *journalLines) isBusy() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Since(j.last) < followedLag
}

// Write never fails.
func (j *journalLines) Write(p []byte) (int, error) {
	j.mu.Lock()
	j.last = time.Now()
	j.mu.Unlock()
	if j.read += len(p); j.read > mostRead {
		j.end(errEnough)
		return len(p), nil
	}
	for line := range bytes.Lines(p) {
		ends := line[len(line)-1] == '\n'
		switch {
		case j.skip:
			j.skip = !ends
			continue
		case len(j.rest)+len(line) > mostLine:
			j.rest, j.skip = nil, !ends
			continue
		}
		j.rest = append(j.rest, line...)
		if ends {
			j.entry(j.rest)
			j.rest = j.rest[:0]
		}
	}
	return len(p), nil
}

// entry shows an entry of the journal. Its message is null if it is too long, and a list of bytes if it
// has control characters: systemd's "Journal Export Formats".
func (j *journalLines) entry(text []byte) {
	var entry struct {
		Cursor  string          `json:"__CURSOR"`
		Message json.RawMessage `json:"MESSAGE"`
		By      string          `json:"SYSLOG_IDENTIFIER"`
		PID     string          `json:"_PID"`
	}
	if json.Unmarshal(text, &entry) != nil || j.so.Bytes >= mostFollowed {
		return
	}
	var message string
	if json.Unmarshal(entry.Message, &message) != nil || string(entry.Message) == "null" {
		var raw []uint16 // not []byte, which is base64
		if json.Unmarshal(entry.Message, &raw) != nil || raw == nil {
			message = "(a message that is too long)"
		}
		text := make([]byte, len(raw))
		for i, b := range raw {
			text[i] = byte(b)
		}
		message += string(text)
	}
	if len(entry.Cursor) < 500 && printable.Line(entry.Cursor) != "" {
		j.so.Cursor = entry.Cursor
	}
	by := cmp.Or(entry.By, "unknown")
	if entry.PID != "" {
		by += "[" + entry.PID + "]"
	}
	for line := range strings.Lines(message) {
		if line = printable.Line(line); line == "" || !tells(by+": "+line) {
			continue
		}
		line = j.prefix + printable.Line(by) + ": " + line
		if j.so.Bytes += len(line); j.so.Bytes >= mostFollowed {
			j.show(j.prefix + enoughSaid)
			j.end(errEnough)
			return
		}
		j.show(line)
	}
}
