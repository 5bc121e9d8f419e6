package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Fuzz feeds each parser of outside input what it has never seen, for so long.
// Go keeps what led somewhere new in its cache, for the next time; what breaks a
// parser it writes to testdata/fuzz of the package, which is to be committed: from
// then on the unit tests try it.
func Fuzz(each time.Duration) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		return s.phase(fmt.Sprintf("fuzz, %v each", each), func() error {
			targets, err := fuzzTargets(ctx)
			if err != nil {
				return err
			}
			var failed error
			for _, t := range targets {
				failed = errors.Join(failed, s.tests(&reader{where: "fuzz"}, exec.CommandContext(ctx,
					"go", "test", "-v", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+each.String(), t.pkg)))
			}
			return failed
		})
	}
}

type fuzzTarget struct{ pkg, name string }

// fuzzFunction is the head of a target.
var fuzzFunction = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// fuzzTargets finds the targets in the files of tests. To ask the tests themselves takes as long
// as to link them all.
func fuzzTargets(ctx context.Context) ([]fuzzTarget, error) {
	const format = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}`
	out, err := exec.CommandContext(ctx, "go", "list", "-f", format, "nspawn-runner/runner/...").Output()
	if err != nil {
		return nil, fmt.Errorf("list files of tests: %w", err)
	}
	var all []fuzzTarget
	for line := range strings.Lines(string(out)) {
		pkg, path, is := strings.Cut(strings.TrimSpace(line), " ")
		if !is {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, target := range fuzzFunction.FindAllSubmatch(text, -1) {
			all = append(all, fuzzTarget{pkg, string(target[1])})
		}
	}
	return all, nil
}
