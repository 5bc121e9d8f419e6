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
	passed   int
	failures []failure
	skips    []string
	slow     []timed
}

// failure is a test that failed, and what it said, which may be long.
type failure struct {
	name string
	said []string
}

// The summary repeats this much of what a test said that failed: of a long run, some places
// keep nothing but the end. What a panic is begins its lines, what a test missed ends them.
const (
	repeatedFirst      = 6
	repeatedLast       = 14
	repeatedCharacters = 400 // of a line
)

// lines are the failure's lines in the summary.
func (f failure) lines() []string {
	said := f.said
	if left := len(said) - repeatedFirst - repeatedLast; left > 1 {
		said = slices.Concat(said[:repeatedFirst], []string{fmt.Sprintf("... %d lines ...", left)}, said[len(said)-repeatedLast:])
	}
	lines := []string{"failed: " + f.name}
	for _, line := range said {
		if len(line) > repeatedCharacters {
			line = line[:repeatedCharacters] + "..."
		}
		lines = append(lines, "    "+strings.TrimSpace(line))
	}
	return lines
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
	// lines are what each test, or subtest, said. Results of subtests come after that of
	// their test.
	lines map[string][]string
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
	r.keep(line)
}

// keep keeps a line for the summary.
func (r *reader) keep(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	if r.lines == nil {
		r.lines = map[string][]string{}
	}
	r.lines[r.turn] = append(r.lines[r.turn], line)
}

// reason is what a test said last: of one that is skipped, why.
func reason(said []string) string {
	last := 0
	for i, line := range said {
		if saidLine.MatchString(line) {
			last = i
		}
	}
	return strings.Join(strings.Fields(strings.Join(said[last:], " ")), " ")
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
		r.results.failures = append(r.results.failures, failure{r.where + ": " + name, r.lines[name]})
		said.WriteTo(r.out)
	case "SKIP":
		r.results.skips = append(r.results.skips, r.where+": "+name+": "+reason(r.lines[name]))
	}
	delete(r.lines, name)
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
		r.keep(line)
		r.flushHeld()
		fmt.Fprintln(r.out, line)
	case begins("ok  ", "FAIL\t", "goroutine ", "testing:", "exit status"):
		fmt.Fprintln(r.out, line)
	default:
		r.say(line)
	}
}

// brokeOff is called when the tests ended without a test that failed: what they printed is
// the reason.
func (r *reader) brokeOff() {
	r.results.failures = append(r.results.failures, failure{r.where + ": broke off, " + cmp.Or(r.turn, "before the first test"), r.lines[r.turn]})
	r.flushHeld()
}

// flushHeld shows all that is held.
func (r *reader) flushHeld() {
	for _, test := range slices.Sorted(maps.Keys(r.held)) {
		r.held[test].WriteTo(r.out)
	}
	r.held = nil
}
