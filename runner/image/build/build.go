// Package build is what all steps of a build share: the tree, the log, and events.
//
// A build makes the tree of one generation, in steps (step.go). A step runs programs on
// this host, or in a box on the tree; what they print goes to the build's log (log.go),
// and the line that explains a failure into its error. Events tell of steps, and how
// far dpkg is in them (packages.go).
//
// What the steps are, this package does not know: see the packages debian, for the first
// tree, ansible, for playbooks, and image, for the order.
package build

import (
	"sync/atomic"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/downloads"
)

// Build is one tree in the making.
type Build struct {
	// Image is whose tree it is, for people.
	Image string
	// Tree is the tree, whose root exists once a step has made it.
	box.Tree
	// StateDir is the directory of all images, on whose file system the tree is.
	StateDir string
	// Environment goes to all programs, on top of what this process has.
	Environment map[string]string
	Downloads   downloads.Cache
	Log         *Log
	// Colours has programs colour what they print. The log is without.
	Colours bool
	// Progress, if set, is told what goes on, by several goroutines.
	Progress func(Event)

	program atomic.Int64 // the process of the program that runs, or 0
}

// Event is a moment of a build. Besides Image, exactly one
// of its fields is set.
type Event struct {
	Image string
	// Step has begun.
	Step string
	// Note is a line for people: a warning, or what the build waits for or found.
	Note string
	// Packages says how far dpkg is in this step.
	Packages *PackageCount
}

// PackageCount is what dpkg did in a tree since the step began.
type PackageCount struct {
	Done  int `json:"done"`  // are installed
	Begun int `json:"begun"` // have been unpacked, or are being
}

// Note tells a line for people.
func (b *Build) Note(text string) { b.tell(Event{Note: text}) }

func (b *Build) tell(event Event) {
	if b.Progress != nil {
		event.Image = b.Image
		b.Progress(event)
	}
}
