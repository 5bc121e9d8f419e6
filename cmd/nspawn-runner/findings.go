package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"nspawn-runner/runner/doctor"
)

// What the doctor prints for people.

// looks is how text is printed: for a terminal, or for what reads it elsewhere.
type looks struct {
	width   int // in columns, at which words wrap; 0 for never
	colours bool
}

// looksOf is how text is printed to a file. NO_COLOR is no-color.org's.
func looksOf(out *os.File) looks {
	width, _, err := term.GetSize(int(out.Fd()))
	if err != nil { // not a terminal
		return looks{}
	}
	return looks{width: width, colours: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// stateColours are the colours of states: the parameters of console_codes(4).
var stateColours = map[doctor.State]string{doctor.Good: "32", doctor.Warning: "33", doctor.Bad: "31"}

// printFindings prints a line for each finding of the doctor's, and one for what to do.
func printFindings(out io.Writer, all []doctor.Finding, l looks) error {
	checks := 0
	for _, f := range all {
		checks = max(checks, len(f.Check))
	}
	indent := len(doctor.Warning) + 2 + checks + 2
	var text strings.Builder
	for _, f := range all {
		state := fmt.Sprintf("%-*s", len(doctor.Warning), f.State)
		if l.colours {
			state = "\x1b[" + stateColours[f.State] + "m" + state + "\x1b[0m"
		}
		fmt.Fprintf(&text, "%s  %-*s  ", state, checks, f.Check)
		writeWrapped(&text, f.Found, indent, l.width)
		advice := func(words string) {
			text.WriteString(strings.Repeat(" ", indent) + "-> ")
			writeWrapped(&text, words, indent+len("-> "), l.width)
		}
		if f.ToDo != "" {
			advice(f.ToDo)
		}
		if f.Fix != nil {
			advice("or let 'doctor --fix' do it: " + f.Fix.What)
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// narrowest is how many columns words take at least, on a terminal that has fewer.
const narrowest = 20

// writeWrapped ends a line that has indent columns already with words, and goes on below
// them where they reach the width.
func writeWrapped(out *strings.Builder, words string, indent, width int) {
	room := max(width-indent, narrowest)
	used := 0
	for word := range strings.FieldsSeq(words) {
		length := len([]rune(word))
		switch {
		case used == 0:
		case width > 0 && used+1+length > room:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			used = 0
		default:
			out.WriteByte(' ')
			used++
		}
		out.WriteString(word)
		used += length
	}
	out.WriteByte('\n')
}

// problems is an error if the doctor found what is bad.
func problems(all []doctor.Finding) error {
	var found []string
	for _, f := range all {
		if f.State == doctor.Bad {
			found = append(found, f.Check)
		}
	}
	if found == nil {
		return nil
	}
	return fmt.Errorf("problems found: %s", strings.Join(slices.Compact(found), ", "))
}
