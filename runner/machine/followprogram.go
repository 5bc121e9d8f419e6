package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"nspawn-runner/runner/printable"
)

// FollowAll shows what the services of a job say whose records want it, each line with the
// names of its service before it, until enough is closed and what they had said by then is
// shown. It goes on where it ended last. The record is that of the job's main machine.
func (s Store) FollowAll(ctx context.Context, main Record, enough <-chan struct{}, show func(line string)) {
	s.ofServices(main, func(r Record) []string {
		switch {
		case r.Followed && r.Program != nil:
			s.followProgram(ctx, r, enough, show)
		case r.Followed && r.up():
			s.follow(ctx, r, enough, show)
		}
		return nil
	})
}

// longestLine is how many bytes of a line are waited for.
const longestLine = 4 << 10

// followProgram shows what the program of a machine prints, also what it printed before it ended,
// until enough is closed.
func (s Store) followProgram(ctx context.Context, r Record, enough <-chan struct{}, show func(line string)) {
	var so followed
	path := filepath.Join(s.dir(r.ID), followedFile)
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &so) != nil {
		so = followed{}
	}
	before := so
	for over := false; !over && so.Bytes < mostFollowed; {
		select {
		case <-enough:
			over = true
			time.Sleep(followedLag / 10) // what it has just printed is on its way
		case <-ctx.Done():
			over = true
		case <-time.After(followedLag):
		}
		so = s.showOutput(r, so, show)
	}
	if data, err := json.Marshal(so); err == nil && so != before {
		_ = os.WriteFile(path, data, 0o600)
	}
}

// showOutput shows the lines that a program has printed since, and returns how far that is.
func (s Store) showOutput(r Record, so followed, show func(line string)) followed {
	since, _ := strconv.ParseUint(so.Cursor, 10, 64)
	text, skipped, next := s.output(r, since)
	prefix := ServicePrefix(r.Aliases)
	if skipped > 0 {
		show(prefix + "(" + strconv.FormatUint(skipped, 10) + " bytes were printed faster than they could be shown)")
	}
	rest := text[bytes.LastIndexByte(text, '\n')+1:]
	if len(rest) < longestLine {
		text, next = text[:len(text)-len(rest)], next-uint64(len(rest))
	}
	so.Cursor = strconv.FormatUint(next, 10)
	for line := range bytes.Lines(text) {
		words := printable.Line(string(line))
		if words == "" {
			continue
		}
		if so.Bytes += len(prefix) + len(words); so.Bytes >= mostFollowed {
			show(prefix + enoughSaid)
			break
		}
		show(prefix + words)
	}
	return so
}
