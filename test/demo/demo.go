// Package demo shows the main jobs from end to end: a CI job that builds a
// Debian package from its source, and one that uses services.
package demo

import (
	"context"
	_ "embed"
	"io"

	"nspawn-runner/test/play"
)

var (
	//go:embed hello.yaml
	helloJob string
	//go:embed services.yaml
	servicesJob string
)

// Run runs the demo.
func Run(ctx context.Context, out io.Writer) error {
	p := play.Play{Name: "demo", Image: "bookworm", Jobs: []play.Job{{Name: "hello", File: helloJob}}, Out: out}
	return p.Run(ctx)
}

// RunServices runs the demo of a job that has services.
func RunServices(ctx context.Context, out io.Writer) error {
	p := play.Play{
		Name: "demo-services", Image: "bookworm", Services: []string{"postgres", "redis"},
		Jobs: []play.Job{{Name: "use databases", File: servicesJob}}, Out: out,
	}
	return p.Run(ctx)
}
