package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatAProgramWroteLastIsKept(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	record := Record{ID: "7-service1", Program: &programRecord{}}
	if text, skipped, next := s.output(record, 5); text != nil || skipped != 0 || next != 5 {
		t.Errorf("of no program: %q, %d, %d", text, skipped, next)
	}
	if err := os.Mkdir(s.dir(record.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	output, err := newRing(filepath.Join(s.dir(record.ID), outputFile))
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) { _, _ = output.Write([]byte(text)) }
	write("one\ntwo\n")
	if text, skipped, next := s.output(record, 4); string(text) != "two\n" || skipped != 0 || next != 8 {
		t.Errorf("%q, %d, %d", text, skipped, next)
	}
	write(strings.Repeat("x", ringSize-5))
	write("\nend\n")
	text, skipped, next := s.output(record, 0)
	if len(text) != ringSize || !strings.HasSuffix(string(text), "xx\nend\n") || skipped != 8 || next != ringSize+8 {
		t.Errorf("%d bytes, %q, %d, %d", len(text), text[len(text)-8:], skipped, next)
	}
	write(strings.Repeat("y", 3*ringSize) + "\n\x1b[31mlast\x00\n")
	if text, skipped, _ := s.output(record, next); len(text) != ringSize || skipped != 2*ringSize+12 {
		t.Errorf("%d bytes, %d skipped", len(text), skipped)
	}
	if words := s.programWords(record); len(words) != 2 || words[1] != "[31mlast" {
		t.Errorf("%d lines", len(words))
	}
}

func TestAnEndIsWordedByWhatEndedTheProgram(t *testing.T) {
	for want, end := range map[string]End{
		"it has ended, with exit code 0":            {},
		"it has ended with exit code 3":             {Code: 3},
		"it was killed by signal SIGSEGV":           {Code: 139, Signal: "SEGV"},
		"it ran out of memory (service_memory_max)": {Code: 137, Signal: "KILL", OutOfMemory: true},
	} {
		if got := end.String(); got != want {
			t.Errorf("%+v: %s", end, got)
		}
	}
}

func TestOnlyAProgramThatCatchesItsStopSignalIsWaitedFor(t *testing.T) {
	if catches(os.Getpid(), 9) || !catches(os.Getpid(), 11) || catches(os.Getpid(), 0) || catches(os.Getpid(), 100) {
		t.Error("Go catches SIGSEGV, and no program SIGKILL")
	}
}

func TestAJobIsShownWhatAProgramPrintsLineByLine(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	record := Record{ID: "7-service1", Program: &programRecord{}, Aliases: []string{"db"}}
	if err := os.Mkdir(s.dir(record.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	output, err := newRing(filepath.Join(s.dir(record.ID), outputFile))
	if err != nil {
		t.Fatal(err)
	}
	follow := func() string {
		var shown strings.Builder
		over := make(chan struct{})
		close(over)
		s.followProgram(t.Context(), record, over, func(line string) { shown.WriteString(line + "\n") })
		return shown.String()
	}
	for _, step := range []struct{ printed, want string }{
		{"one\n\x1b[2Jtwo\nhal", "[service:db] one\n[service:db] [2Jtwo\n"},
		{"", ""},
		{"f\n", "[service:db] half\n"},
		{strings.Repeat("x", 5000), "[service:db] " + strings.Repeat("x", 300) + "...\n"},
		{strings.Repeat("y", ringSize) + "\nend\n", "[service:db] (5 bytes were printed faster than they could be shown)\n[service:db] " + strings.Repeat("y", 300) + "...\n[service:db] end\n"},
	} {
		_, _ = output.Write([]byte(step.printed))
		if got := follow(); got != step.want {
			t.Errorf("%.20q: %q, want %q", step.printed, got, step.want)
		}
	}
	for range 200 {
		_, _ = output.Write([]byte(strings.Repeat("much\n", ringSize/10)))
		follow()
	}
	if got := follow(); got != "" {
		t.Errorf("after %d bytes: %q", mostFollowed, got)
	}
}
