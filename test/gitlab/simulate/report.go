package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/test/gitlab"
)

// report is a table of what each call of the driver cost, without the machine, and the
// job's end in one line.
func report(out io.Writer, result gitlab.Result, colour bool) error {
	var total time.Duration
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAGE\tSUB-STAGE\tTIME\tCPU\tMEMORY\tEXIT")
	for _, s := range result.Stages {
		total += s.Elapsed
		sub := s.SubStage
		if s.Try > 1 {
			sub = strings.TrimSpace(fmt.Sprintf("%s (try %d)", sub, s.Try))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Stage, sub, seconds(s.Elapsed), seconds(s.User+s.System), mebibytes(s.PeakRSS), exit(s))
	}
	table.Flush() // into memory
	verdict := fmt.Sprintf("%s in %s, %d calls of the driver; CPU and MEMORY are its own", ending(result), seconds(total), len(result.Stages))
	if colour {
		code := "\x1b[32;1m"
		if result.Status != gitlab.Success {
			code = "\x1b[31;1m"
		}
		verdict = code + verdict + "\x1b[0m"
	}
	_, err := fmt.Fprintf(out, "\n%s\n%s\n", trimLines(text.String()), verdict)
	return err
}

// ending is the result in words.
func ending(r gitlab.Result) string {
	switch r.Status {
	case gitlab.Success:
		return "job succeeded"
	case gitlab.Canceled:
		return "job canceled"
	case gitlab.Abandoned:
		return "job abandoned"
	}
	words := "job failed: " + strings.ReplaceAll(string(r.Reason), "_", " ")
	if r.ExitCode != 0 {
		words += fmt.Sprintf(", exit code %d", r.ExitCode)
	}
	return words
}

// exit is how one process ended.
func exit(s gitlab.StageResult) string {
	switch {
	case s.Pid == 0:
		return "not started"
	case s.Left:
		return "left running"
	case s.Signal != 0:
		return unix.SignalName(s.Signal)
	}
	return fmt.Sprint(s.ExitStatus)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%dM", (n+1<<20-1)>>20) }

// trimLines removes the blanks that tables end their lines with.
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
