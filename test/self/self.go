// Package self plays jobs of this project's own .gitlab-ci.yml on its own
// driver, in machines of image trixie, with what is committed as their source.
package self

import (
	"context"
	"fmt"
	"io"
	"os"

	"nspawn-runner/test/play"
)

// Run plays the jobs that a machine can run, or the one that is named.
func Run(ctx context.Context, out io.Writer, only string) error {
	pipeline, err := os.ReadFile(".gitlab-ci.yml")
	if err != nil {
		return fmt.Errorf("self: %w", err)
	}
	outer, err := outerVariables(ctx)
	if err != nil {
		return fmt.Errorf("self: %w", err)
	}
	url, server, err := serveSource(ctx)
	if err != nil {
		return fmt.Errorf("self: %w", err)
	}
	defer server.Close()
	p := play.Play{Name: "self", Image: "trixie", Out: out}
	jobs := []string{"lint", "build", "unit"}
	if only != "" {
		jobs = []string{only}
	}
	for _, name := range jobs {
		args := append([]string{"--job", name, "--repository", url}, outer...)
		p.Jobs = append(p.Jobs, play.Job{Name: name, File: string(pipeline), Args: args})
	}
	return p.Run(ctx)
}
