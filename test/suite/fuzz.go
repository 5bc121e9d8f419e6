package suite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
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

// fuzzTargets asks the packages for theirs.
func fuzzTargets(ctx context.Context) ([]fuzzTarget, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-list=^Fuzz", "nspawn-runner/runner/...").Output()
	if err != nil {
		return nil, fmt.Errorf("list fuzz targets: %w", err)
	}
	var all []fuzzTarget
	var names []string // of the package whose line comes next
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		switch words := strings.Fields(lines.Text()); {
		case len(words) == 1 && strings.HasPrefix(words[0], "Fuzz"):
			names = append(names, words[0])
		case len(words) > 1 && words[0] == "ok":
			for _, name := range names {
				all = append(all, fuzzTarget{words[1], name})
			}
			names = nil
		}
	}
	return all, nil
}
