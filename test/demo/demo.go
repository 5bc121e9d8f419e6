// Package demo shows the main job from end to end: a CI job that builds a
// Debian package from its source.
package demo

import (
	"context"
	_ "embed"
	"io"

	"nspawn-runner/test/play"
)

//go:embed hello.yaml
var helloJob string

// Run runs the demo.
func Run(ctx context.Context, out io.Writer) error {
	p := play.Play{Name: "demo", Image: "bookworm", Jobs: []play.Job{{Name: "hello", File: helloJob}}, Out: out}
	return p.Run(ctx)
}
