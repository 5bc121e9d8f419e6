package suite

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const verbose = `=== RUN   TestGood
    x_test.go:1: a word
--- PASS: TestGood (0.01s)
=== RUN   TestBad
=== RUN   TestBad/inner
    x_test.go:2: what went wrong
--- FAIL: TestBad (0.00s)
    --- FAIL: TestBad/inner (0.00s)
=== RUN   TestSkipped
    x_test.go:3: needs a moon
--- SKIP: TestSkipped (0.00s)
FAIL
FAIL	nspawn-runner/x	0.1s
`

func TestResultsAreCountedAndFailuresExplained(t *testing.T) {
	var out bytes.Buffer
	var all results
	r := &reader{out: &out, results: &all, where: "unit"}
	if err := r.read(strings.NewReader(verbose)); err != nil {
		t.Fatal(err)
	}
	want := "failed: unit: TestBad\nfailed: unit: TestBad/inner\n    x_test.go:2: what went wrong"
	if all.passed != 1 || len(all.failures) != 2 || strings.Join(slices.Concat(all.failures[0].lines(), all.failures[1].lines()), "\n") != want {
		t.Errorf("%+v", all)
	}
	if len(all.skips) != 1 || !strings.Contains(all.skips[0], "TestSkipped: x_test.go:3: needs a moon") {
		t.Errorf("skips: %q", all.skips)
	}
	if text := out.String(); !strings.Contains(text, "what went wrong") || strings.Contains(text, "a word") {
		t.Errorf("shown: %s", text)
	}
}

func TestTheSummaryRepeatsTheBeginningAndTheEndOfWhatAFailedTestSaid(t *testing.T) {
	said := slices.Repeat([]string{"    a line"}, 100)
	said[99] = "    " + strings.Repeat("long ", 1000)
	lines := failure{"lab: TestX", said}.lines()
	if len(lines) != 22 || lines[0] != "failed: lab: TestX" || lines[7] != "    ... 80 lines ..." || len(lines[21]) > 500 {
		t.Errorf("%q", lines)
	}
}

func TestOfEachTestThatIsSkippedTheReasonIsShown(t *testing.T) {
	var all results
	r := &reader{out: new(bytes.Buffer), results: &all, where: "lab"}
	r.read(strings.NewReader(`=== RUN   TestParts
=== RUN   TestParts/one
    x_test.go:1: a word
    x_test.go:2: [mkfs.btrfs]: exit status 1: ERROR:
        no room
=== RUN   TestParts/two
    x_test.go:3: needs a moon
=== RUN   TestParts/three
    x_test.go:4: another word
--- PASS: TestParts (0.01s)
    --- SKIP: TestParts/one (0.00s)
    --- SKIP: TestParts/two (0.00s)
    --- PASS: TestParts/three (0.00s)
`))
	want := []string{
		"lab: TestParts/one: x_test.go:2: [mkfs.btrfs]: exit status 1: ERROR: no room",
		"lab: TestParts/two: x_test.go:3: needs a moon",
	}
	if !slices.Equal(all.skips, want) {
		t.Errorf("%q", all.skips)
	}
}

func TestAPanicIsShown(t *testing.T) {
	var out bytes.Buffer
	r := &reader{out: &out, results: &results{}, where: "lab"}
	r.read(strings.NewReader("=== RUN   TestX\nbefore it\npanic: boom\n\ngoroutine 1 [running]:\n"))
	if !strings.Contains(out.String(), "before it\npanic: boom") {
		t.Error(out.String())
	}
	r.brokeOff()
	if got := strings.Join(r.results.failures[0].lines(), "\n"); got != "failed: lab: broke off, TestX\n    before it\n    panic: boom" {
		t.Error(got)
	}
}

func TestWhatParallelTestsSayIsKeptApart(t *testing.T) {
	var out bytes.Buffer
	r := &reader{out: &out, results: &results{}}
	r.read(strings.NewReader(`=== CONT  TestBad
    x_test.go:1: what went wrong
=== NAME  TestGood
    x_test.go:2: a word
--- PASS: TestGood (0.01s)
=== NAME  TestBad
--- FAIL: TestBad (0.00s)
`))
	if text := out.String(); !strings.Contains(text, "what went wrong") || strings.Contains(text, "a word") {
		t.Errorf("shown: %s", text)
	}
}

func TestAttacksThatWereHeldAreListed(t *testing.T) {
	var out bytes.Buffer
	r := &reader{out: &out, results: &results{}}
	r.read(strings.NewReader("=== RUN   TestAttack\nheld: leave the machine\n    x_test.go:1: a word\n--- PASS: TestAttack (0.01s)\n"))
	if text := out.String(); !strings.HasPrefix(text, "held: leave the machine\n") || strings.Contains(text, "a word") {
		t.Errorf("shown: %s", text)
	}
}

func TestTheSlowestTestsAreNamed(t *testing.T) {
	var all results
	r := &reader{out: new(bytes.Buffer), results: &all, where: "lab"}
	r.read(strings.NewReader("--- PASS: TestQuick (0.01s)\n--- PASS: TestSlow (12.34s)\n    --- PASS: TestSlow/part (12.00s)\n--- FAIL: TestSlower (70.00s)\n"))
	want := []string{"slow: lab: TestSlower 70 s", "slow: lab: TestSlow 12 s"}
	if got := all.slowestLines(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
