package machine

import (
	"context"
	"io"
	"strings"

	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// lastWords is a script that prints the last lines of a machine's journal.
const lastWords = "journalctl --quiet --no-pager --no-hostname --output=short --lines=100\n"

// mostWords bounds how much of its output is kept, in bytes.
const mostWords = 64 << 10

// LastWords returns the last lines of a job's machine.
func (s Store) LastWords(ctx context.Context, job string, role Role) (lines []string) {
	record, err := s.RecordOf(job, role)
	if err != nil {
		return nil
	}
	if record.Program != nil {
		return s.programWords(record)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*reasonTimeout)
	defer cancel()
	if !record.up() {
		return consoleTail(ctx, record)
	}
	words := Tail{Max: mostWords}
	script := Script{Source: strings.NewReader(lastWords), Label: "journal", Stdout: &words, Stderr: io.Discard, Role: role}
	if _, err := s.Exec(ctx, job, func(Record) error { return nil }, script); err != nil {
		return consoleTail(ctx, record)
	}
	return lastOf(telling(words.lines()))
}

// Unsettled returns lines about the units of a job's machine that still start, or have failed.
func (s Store) Unsettled(ctx context.Context, job string, role Role) (lines []string) {
	record, err := s.RecordOf(job, role)
	if err != nil || record.Program != nil || !record.up() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reasonTimeout)
	defer cancel()
	err = s.ask(ctx, record, func(bus *systemd.Bus) error {
		lines = unsettled(ctx, bus)
		return nil
	})
	if err != nil {
		return []string{"its bus does not answer: " + printable.Line(err.Error())}
	}
	return lines
}

// telling returns the lines of a journal that may say what went wrong, without their times.
func telling(journal []string) (lines []string) {
	for _, line := range journal {
		line = line[min(len(line), len("Jan 02 15:04:05 ")):]
		if line != "" && tells(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// tells says whether one line may say what went wrong. The line begins with the name of its program. These
// do not: lines of the service manager about success, lines of journald and logind, lines about scripts of
// this program, and that of dbus-daemon about a limit, which comes in each machine without
// CAP_SYS_RESOURCE.
func tells(line string) bool {
	words, systemds := strings.CutPrefix(line, "systemd[1]: ")
	switch {
	case strings.Contains(line, unitPrefix), strings.HasPrefix(line, "systemd-journald["), strings.HasPrefix(line, "systemd-logind["):
		return false
	case strings.HasPrefix(line, "dbus-daemon[") && strings.Contains(line, "Failed to set fd limit"):
		return false
	}
	return !systemds || strings.Contains(words, "ailed") || strings.Contains(words, "exited")
}
