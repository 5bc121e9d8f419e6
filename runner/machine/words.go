package machine

import (
	"context"
	"io"
	"strings"

	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// lastWords prints what a machine's services and programs have said last.
const lastWords = "journalctl --quiet --no-pager --no-hostname --output=short --lines=100\n"

// mostWords bounds what is read of it, in bytes.
const mostWords = 64 << 10

// LastWords are the last lines that a job's machine has said: what a person looks for who
// wonders what became of it.
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

// Unsettled says which units of a job's machine are still starting and which have failed.
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

// telling are the lines of a journal that say what went wrong, without their times.
func telling(journal []string) (lines []string) {
	for _, line := range journal {
		line = line[min(len(line), len("Jan 02 15:04:05 ")):]
		if line != "" && tells(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// tells says so of one line, which begins with who said it: not what the service manager says
// of what went well, not what its journal and logind say of themselves, nothing of what this
// program executes, and not that the bus cannot raise a limit, as in each machine without
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
