package runner

import (
	"nspawn-runner/runner/image"
)

// Event is a moment of what a build or a stage does, for whoever looks on: one of the
// fields below Image is set.
type Event struct {
	// Image is the image that it is about, "" if that is none.
	Image string
	// Step is a step of a build that has begun.
	Step string
	// Note is a line for people: a warning, or what is waited for or found.
	Note string
	// Packages says how far dpkg is in a build's step.
	Packages *image.PackageCount
	// Maintained is what became of an image in a maintenance.
	Maintained *Maintained
	// Detail is a line for people who want to know each thing that is done, and Output
	// what a program of a build printed. They come only if [Options.Verbose] is set.
	Detail string
	Output []byte
}

// String is the event as a line for people, "" if it has none.
func (e Event) String() string {
	switch line := e.Step + e.Note + e.Detail; {
	case e.Maintained != nil:
		return e.Maintained.String()
	case line == "" || e.Image == "":
		return line
	default:
		return e.Image + ": " + line
	}
}
