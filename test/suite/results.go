package suite

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// results counts the tests of all phases.
type results struct {
	passed          int
	failures, skips []string
	slow            []timed
}

// timed is a test that took long.
type timed struct {
	name string
	took time.Duration
}

// slowest is how many tests the summary names, and least how long each of them took.
const (
	slowest = 10
	least   = 5 * time.Second
)

// slowestLines are lines about the tests that took longest.
func (r *results) slowestLines() (lines []string) {
	slices.SortStableFunc(r.slow, func(a, b timed) int { return cmp.Compare(b.took, a.took) })
	for _, t := range r.slow[:min(len(r.slow), slowest)] {
		lines = append(lines, fmt.Sprintf("slow: %s %.0f s", t.name, t.took.Seconds()))
	}
	return lines
}

// add adds what other phases came to.
func (r *results) add(other results) {
	r.passed += other.passed
	r.failures = append(r.failures, other.failures...)
	r.skips = append(r.skips, other.skips...)
	r.slow = append(r.slow, other.slow...)
}

// reader reads the output of `go test -v` as it comes, passes on what a person
// wants to see of it, and counts.
type reader struct {
	out     io.Writer
	results *results
	where   string // the phase, for names in the summary
	brief   bool   // shows packages, and of tests only what did not pass
	// each is told of the result of each test and subtest, if it is set.
	each func(result, test, took string)

	// Of the tests that are running, what they printed, until it is clear
	// whether anybody wants to read it. Those that run in parallel take turns,
	// which lines like "=== NAME  TestX/sub" announce.
	held map[string]*bytes.Buffer
	turn string
	// last is what each test, or subtest, said last: of one that is skipped, why. Results
	// of subtests come after that of their test.
	last map[string]string
}

var (
	turnLine = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +(.*)`)
	// saidLine begins what a test says: FILE:LINE. More lines of it are indented further.
	saidLine = regexp.MustCompile(`^\s+\w+\.go:\d+: `)
)

// say takes a line that the test whose turn it is has printed.
func (r *reader) say(line string) {
	test, _, _ := strings.Cut(r.turn, "/")
	fmt.Fprintln(r.said(test), line)
	if r.last == nil {
		r.last = map[string]string{}
	}
	if saidLine.MatchString(line) {
		r.last[r.turn] = ""
	}
	r.last[r.turn] = strings.TrimSpace(r.last[r.turn] + " " + strings.TrimSpace(line))
}

// said is what a test, with its subtests, has printed.
func (r *reader) said(test string) *bytes.Buffer {
	if r.held == nil {
		r.held = map[string]*bytes.Buffer{}
	}
	if r.held[test] == nil {
		r.held[test] = &bytes.Buffer{}
	}
	return r.held[test]
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
	test, _, _ := strings.Cut(name, "/")
	said := r.said(test)
	if r.each != nil {
		r.each(result, name, took)
	}
	if d, err := time.ParseDuration(took); err == nil && d >= least && !nested {
		r.results.slow = append(r.results.slow, timed{r.where + ": " + name, d})
	}
	switch result {
	case "PASS":
		r.results.passed++
	case "FAIL":
		r.results.failures = append(r.results.failures, r.where+": "+name)
		said.WriteTo(r.out)
	case "SKIP":
		r.results.skips = append(r.results.skips, r.where+": "+name+": "+r.last[name])
	}
	delete(r.last, name)
	if result == "FAIL" || !nested && !(r.brief && result == "PASS") {
		fmt.Fprintf(r.out, "%s %s (%s)\n", strings.ToLower(result), name, took)
	}
	if !nested {
		delete(r.held, test)
	}
}

// other takes a line that is not a test's result.
func (r *reader) other(line string) {
	begins := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
	}
	if turn := turnLine.FindStringSubmatch(line); turn != nil {
		r.turn = turn[1]
		return
	}
	switch {
	case begins("=== ", "?   "), line == "PASS", line == "FAIL":
	case begins("after the power cut: ", "held", "soak: ", "works ", "refused ", "fails "):
		fmt.Fprintln(r.out, line)
	case begins("panic:", "WARNING: DATA RACE", "fatal error:"):
		r.flushHeld()
		fmt.Fprintln(r.out, line)
	case begins("ok  ", "FAIL\t", "goroutine ", "testing:", "exit status"):
		fmt.Fprintln(r.out, line)
	default:
		r.say(line)
	}
}

// flushHeld shows all that is held.
func (r *reader) flushHeld() {
	for _, test := range slices.Sorted(maps.Keys(r.held)) {
		r.held[test].WriteTo(r.out)
	}
	r.held = nil
}
