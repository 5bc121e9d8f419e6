package suite

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Lint checks the source without running it.
func Lint(s *Suite, ctx context.Context) error {
	run := func(name string, argv ...string) error {
		return s.phase("lint: "+name, func() error {
			out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
			if text := strings.TrimSpace(string(out)); text != "" && (err != nil || name == "gofmt") {
				fmt.Fprintln(s.Out, text)
				if err == nil {
					err = errors.New("gofmt would change these")
				}
			}
			return err
		})
	}
	return errors.Join(
		run("gofmt", "gofmt", "-l", "cmd", "runner", "packaging", "test", "magefiles"),
		run("vet", "go", "vet", "./..."),
		run("vet magefiles", "go", "vet", "-tags=mage", "./magefiles"),
		run("staticcheck", "go", "tool", "staticcheck", "./..."),
		run("staticcheck magefiles", "go", "tool", "staticcheck", "-tags=mage", "./magefiles"),
		s.phase("lint: govulncheck", func() error { return s.vulnerabilities(ctx) }),
	)
}

// vulnerabilities asks the Go vulnerability database, where it can be reached.
func (s *Suite) vulnerabilities(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "tool", "govulncheck", "./cmd/...").CombinedOutput()
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(out), "fetching vulnerabilities"):
		s.results.skips = append(s.results.skips, "lint: govulncheck: its database cannot be reached from here")
		return nil
	}
	s.Out.Write(out)
	return err
}
