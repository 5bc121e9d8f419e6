package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/term"

	"nspawn-runner/runner"
	"nspawn-runner/runner/image"
)

// liveLines are the last lines of a terminal, one for each image that is being
// built, drawn over and over: image, step, how long that takes, packages.
type liveLines struct {
	out   *os.File
	lines []*liveLine
	drawn int // lines that are on the terminal now
}

type liveLine struct {
	image, step string
	since       time.Time
	packages    image.PackageCount
}

// update draws what an event changes.
func (l *liveLines) update(event runner.Event) {
	at := slices.IndexFunc(l.lines, func(line *liveLine) bool { return line.image == event.Image })
	if at < 0 {
		at = len(l.lines)
		l.lines = append(l.lines, &liveLine{image: event.Image, since: time.Now()})
	}
	line := l.lines[at]
	if event.Step != "" {
		*line = liveLine{image: line.image, step: event.Step, since: time.Now()}
	}
	if event.Packages != nil {
		line.packages = *event.Packages
	}
	l.draw()
}

// remove takes an image's line away.
func (l *liveLines) remove(name string) {
	l.clear()
	l.lines = slices.DeleteFunc(l.lines, func(line *liveLine) bool { return line.image == name })
	l.draw()
}

// draw draws all lines anew.
func (l *liveLines) draw() {
	var text bytes.Buffer
	l.erase(&text)
	width, _, err := term.GetSize(int(l.out.Fd()))
	if err != nil || width < 2 {
		width = 80
	}
	for _, line := range l.lines {
		words := fmt.Sprintf("%s: %s, %s", line.image, line.step, time.Since(line.since).Truncate(time.Second))
		if line.packages.Begun > 0 {
			words += fmt.Sprintf(", %d of %d packages", line.packages.Done, max(line.packages.Begun, line.packages.Done))
		}
		// A line that wraps would be two for the terminal, and one for erase.
		if runes := []rune(words); len(runes) >= width {
			words = string(runes[:width-1])
		}
		fmt.Fprintln(&text, words)
	}
	l.drawn = len(l.lines)
	_, _ = l.out.Write(text.Bytes())
}

// clear takes all lines off the terminal, so that others can be printed.
func (l *liveLines) clear() {
	var text bytes.Buffer
	l.erase(&text)
	l.drawn = 0
	_, _ = l.out.Write(text.Bytes())
}

// erase writes what takes the cursor to the first of the lines and erases all
// behind it: console_codes(4).
func (l *liveLines) erase(to *bytes.Buffer) {
	if l.drawn > 0 {
		fmt.Fprintf(to, "\x1b[%dA\x1b[J", l.drawn)
	}
}
