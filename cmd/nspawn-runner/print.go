package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"nspawn-runner/runner"
	"nspawn-runner/runner/age"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/size"
)

// What commands print of what operations return: JSON for scripts, else text.

// printed prints what an operation returned as JSON, unless that failed.
func printed(value any, err error) error {
	if err != nil {
		return err
	}
	return printJSON(os.Stdout, value)
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// newTable aligns what is written to it in columns, which tabs divide. Flush ends it.
func newTable(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

// printHistories prints a line for each generation, and one for each image without any.
func printHistories(out io.Writer, rows []runner.ImageHistory) error {
	table := newTable(out)
	fmt.Fprintln(table, "IMAGE\tGENERATION\tSTATE\tBUILT\tFROM\tSIZE\tJOBS\tPLAYBOOK")
	for _, i := range rows {
		if len(i.Generations) == 0 {
			fmt.Fprintf(table, "%s\t-\tto be created\t-\t-\t-\t-\t%s\n", i.Name, i.PlaybookState)
		}
		for _, g := range i.Generations {
			state, playbook := "", image.PlaybookState("")
			if g.Current {
				state, playbook = "current", i.PlaybookState
			}
			if g.Current && i.Stale {
				state += ", stale"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", i.Name, filepath.Base(g.Generation), state,
				age.Ago(g.Built), from(g.Record), sizeOf(g), len(g.Jobs), playbook)
		}
	}
	return table.Flush()
}

// from words what a generation was made of: "maintenance of bookworm, 1f0c2d3e".
func from(r image.Record) string {
	if r.Format == 0 {
		return "unknown"
	}
	text := r.How
	if r.Suite != "" {
		text += " of " + r.Suite
	}
	if r.Playbook != nil {
		text += ", playbook " + short(r.Playbook.SHA256)
	}
	return text
}

// short is as much of a hash as people compare.
func short(hash string) string { return hash[:min(len(hash), 8)] }

// sizeOf words for people how much a generation takes, and how much of that is its
// own, where it shares some.
func sizeOf(g runner.Generation) string {
	text := size.MiB(g.Bytes)
	if g.Exclusive >= 0 {
		text += fmt.Sprintf(" (own %d)", g.Exclusive>>20)
	}
	return text
}

func printContents(out io.Writer, s runner.ImageContents) error {
	table := newTable(out)
	line := func(key, format string, args ...any) {
		fmt.Fprintf(table, key+"\t"+format+"\n", args...)
	}
	line("image:", "%s", s.Name)
	if s.Playbook == "" {
		line("playbook:", "none")
	} else {
		line("playbook:", "%s (%s)", s.Playbook, map[image.PlaybookState]string{
			image.PlaybookRan:     "as it ran",
			image.PlaybookWaiting: "waits for a maintenance",
			image.PlaybookUnknown: "not known whether it ran",
		}[s.PlaybookState])
	}
	if s.FailedBuild != "" {
		line("failed build:", "chroot-login --failed %s opens its tree", s.Name)
	}
	if !s.Exists {
		line("chroot:", "none yet: chroot-create or chroot-maintenance makes it")
		return table.Flush()
	}
	line("release:", "%s", s.Release)
	line("packages:", "%d", s.Packages)
	for _, g := range s.Generations {
		notes := []string{}
		if g.Current {
			notes = append(notes, "current")
		}
		if g.Current && s.Stale {
			notes = append(notes, "stale")
		}
		notes = append(notes, "built "+age.Ago(g.Built), from(g.Record), sizeOf(g))
		if g.Maintained.After(g.Built) {
			notes = append(notes, "maintained "+age.Ago(g.Maintained))
		}
		if len(g.Jobs) > 0 {
			notes = append(notes, "used by "+strings.Join(g.Jobs, " "))
		}
		line("generation:", "%s: %s", filepath.Base(g.Generation), strings.Join(notes, "; "))
	}
	if current := slices.IndexFunc(s.Generations, func(g runner.Generation) bool { return g.Current }); current >= 0 {
		g := s.Generations[current]
		line("path:", "%s", g.Path)
		if g.Playbook != nil {
			line("playbook that ran:", "sha256 %s", g.Playbook.SHA256)
		}
		if g.Why != "" {
			line("last change:", "%s", g.Why)
		}
	}
	return table.Flush()
}

// printDiff prints a line for each package that differs.
func printDiff(out io.Writer, diff runner.ImageDiff) {
	for _, c := range diff.Changes {
		switch {
		case c.Before == "":
			fmt.Fprintf(out, "+ %s %s\n", c.Package, c.After)
		case c.After == "":
			fmt.Fprintf(out, "- %s %s\n", c.Package, c.Before)
		default:
			fmt.Fprintf(out, "  %s %s -> %s\n", c.Package, c.Before, c.After)
		}
	}
}

// printMaintained prints what became of the images of a maintenance.
func printMaintained(out io.Writer, all []runner.Maintained) error {
	table := newTable(out)
	fmt.Fprintln(table, "IMAGE\tRESULT\tGENERATION\tTIME")
	for _, m := range all {
		took := time.Duration(m.Seconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.Image, m.Result, m.Generation, took)
	}
	return table.Flush()
}

// printLeftovers prints a line for each leftover.
func printLeftovers(out io.Writer, leftovers []runner.Leftover, dryRun bool) error {
	table := newTable(out)
	for _, l := range leftovers {
		state := "removed"
		switch {
		case dryRun:
			state = "to remove"
		case !l.Removed:
			state = "stays"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", state, l.What, l.Path, l.Why)
	}
	return table.Flush()
}
