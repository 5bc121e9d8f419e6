// Package suite runs all tests there are, in phases: unit tests on this
// machine, then the integration tests inside a lab and inside a VM. It sets up
// what they need, prints what fails, and ends with a summary: the phases' times, the
// slowest tests, and each test that was skipped or failed, and why.
//
// It is what `mage test` and its parts call.
package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/packaging"
)

// Suite collects the results of phases.
type Suite struct {
	Out     io.Writer
	phases  []phase
	results results
	env     []string // what go gets in its environment besides
}

type phase struct {
	name    string
	elapsed time.Duration
	err     error
}

// Run runs phases and prints the summary. It goes on after a failure, but not
// after the end of ctx.
func Run(ctx context.Context, out io.Writer, phases ...func(*Suite, context.Context) error) error {
	s := &Suite{Out: out}
	var failed error
	for _, run := range phases {
		if ctx.Err() == nil {
			failed = errors.Join(failed, run(s, ctx))
		}
	}
	s.summary()
	return failed
}

// phase runs one phase and takes its time.
func (s *Suite) phase(name string, do func() error) error {
	fmt.Fprintf(s.Out, "\n== %s\n", name)
	start := time.Now()
	err := do()
	s.phases = append(s.phases, phase{name, time.Since(start), err})
	if err != nil {
		fmt.Fprintf(s.Out, "%s: %v\n", name, err)
	}
	return err
}

func (s *Suite) summary() {
	fmt.Fprintf(s.Out, "\n== summary\n")
	for _, p := range s.phases {
		state := "ok"
		if p.err != nil {
			state = "FAILED"
		}
		fmt.Fprintf(s.Out, "%-44s %-6s %6.1f s\n", p.name, state, p.elapsed.Seconds())
		if p.err != nil {
			fmt.Fprintf(s.Out, "    %v\n", p.err)
		}
	}
	for _, line := range s.results.slowestLines() {
		fmt.Fprintln(s.Out, line)
	}
	for _, skip := range s.results.skips {
		fmt.Fprintf(s.Out, "skipped: %s\n", skip)
	}
	for _, failed := range s.results.failures {
		fmt.Fprintln(s.Out, strings.Join(failed.lines(), "\n"))
	}
	if s.results.passed+len(s.results.failures) > 0 { // lint has no tests
		fmt.Fprintf(s.Out, "%d passed, %d failed, %d skipped\n", s.results.passed, len(s.results.failures), len(s.results.skips))
	}
}

// buildDir is where Compile puts programs, below the module's root.
const buildDir = "build"

// Compile builds the product into buildDir, and beside it programs of the tests: packages,
// with paths as for go build, each under its package's last name.
func Compile(ctx context.Context, packages ...string) (dir string, err error) {
	dir, err = filepath.Abs(buildDir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := packaging.Build(ctx, dir); err != nil {
		return "", err
	}
	return dir, command(ctx, "go", append([]string{"build", "-trimpath", "-o", dir + "/"}, packages...)...)
}

// compileTests builds the test binary of a package into buildDir.
func compileTests(ctx context.Context, pkg, name string) error {
	return command(ctx, "go", "test", "-c", "-trimpath", "-o", filepath.Join(buildDir, name), pkg)
}

// command runs a Go command without cgo, so that what it builds runs in any
// Debian.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
