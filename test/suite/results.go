package suite

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// results counts the tests of all phases.
type results struct {
	passed          int
	failures, skips []string
}

// reader reads the output of `go test -v` as it comes, passes on what a person
// wants to see of it, and counts.
type reader struct {
	out     io.Writer
	results *results
	where   string // the phase, for names in the summary
	brief   bool   // shows packages, and of tests only what did not pass

	// Of the tests that are running, what they printed, until it is clear
	// whether anybody wants to read it.
	held bytes.Buffer
}

var resultLine = regexp.MustCompile(`^(\s*)--- (PASS|FAIL|SKIP): (\S+) \((.*)\)$`)

// read reads all of the output.
func (r *reader) read(from io.Reader) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(strings.TrimSuffix(line, "\n"))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) line(line string) {
	found := resultLine.FindStringSubmatch(line)
	if found == nil {
		r.other(line)
		return
	}
	nested, result, name, took := found[1] != "", found[2], found[3], found[4]
	switch result {
	case "PASS":
		r.results.passed++
	case "FAIL":
		r.results.failures = append(r.results.failures, r.where+": "+name)
		r.flushHeld()
	case "SKIP":
		// What it said last is why.
		lines := strings.Split(strings.TrimSpace(r.held.String()), "\n")
		r.results.skips = append(r.results.skips, r.where+": "+name+": "+strings.TrimSpace(lines[len(lines)-1]))
	}
	if result == "FAIL" || !nested && !(r.brief && result == "PASS") {
		fmt.Fprintf(r.out, "%s %s (%s)\n", strings.ToLower(result), name, took)
	}
	if !nested {
		r.held.Reset()
	}
}

// other takes a line that is not a test's result.
func (r *reader) other(line string) {
	begins := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
	}
	switch {
	case begins("=== ", "?   "), line == "PASS", line == "FAIL":
	case begins("after the power cut: "):
		fmt.Fprintln(r.out, line)
	case begins("panic:", "WARNING: DATA RACE", "fatal error:"):
		r.flushHeld()
		fmt.Fprintln(r.out, line)
	case begins("ok  ", "FAIL\t", "goroutine ", "testing:", "exit status"):
		fmt.Fprintln(r.out, line)
	default:
		fmt.Fprintln(&r.held, line)
	}
}

func (r *reader) flushHeld() {
	r.out.Write(r.held.Bytes())
	r.held.Reset()
}
