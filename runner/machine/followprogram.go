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

// FollowAll shows what the followed services of a job say, until enough is closed. It then still shows
// what they had said by that time. Each line begins with the names of its service. A later call goes on
// where the last one ended. main is the record of the job's main machine.
func (s Store) FollowAll(ctx context.Context, main Record, enough <-chan struct{}, show func(line string)) {
	together(s.servicesOf(main), func(_ int, r Record) {
		switch {
		case r.Followed && r.Program != nil:
			s.followProgram(ctx, r, enough, show)
		case r.Followed && r.up():
			s.follow(ctx, r, enough, show)
		}
	})
}

// longestLine is the length, in bytes, from which the beginning of a line is shown without waiting for
// its end.
const longestLine = 4 << 10

// followProgram shows what the program of a machine prints, until enough is closed. The program may have
// ended already.
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
			time.Sleep(followedLag / 10) // its last output may be on its way
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

// showOutput shows the lines that a program has printed since so, and returns the new position.
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
