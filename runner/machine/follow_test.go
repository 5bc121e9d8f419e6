package machine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nspawn-runner/runner/printable"
)

func TestLinesOfAJournalAreShownOnceAndFitToBePrinted(t *testing.T) {
	var got []string
	ended := false
	j := &journalLines{show: func(line string) { got = append(got, line) }, end: func(error) { ended = true }}
	for _, text := range []string{
		`{"__CURSOR":"a","MESSAGE":"ready","SYSLOG_IDENTIFIER":"postgres","_PID":"33"}` + "\n" + `{"__CURSOR":"b","MESS`,
		`AGE":"two\nlines"}` + "\n",
		`{"MESSAGE":[27,91,51,49,109,195,164]}` + "\n{not json\n",
		`{"MESSAGE":null,"SYSLOG_IDENTIFIER":"big"}` + "\n",
		`{"__CURSOR":"c","MESSAGE":"Started x.service.","SYSLOG_IDENTIFIER":"systemd","_PID":"1"}` + "\n",
		strings.Repeat("x", 3*mostLine), "\n" + `{"MESSAGE":"last","SYSLOG_IDENTIFIER":"a\u001bb"}` + "\n",
	} {
		_, _ = j.Write([]byte(text))
	}
	want := []string{"postgres[33]: ready", "unknown: two", "unknown: lines", "unknown: [31mä", "big: (a message that is too long)", "a b: last"}
	if !slices.Equal(got, want) || j.so.Cursor != "c" || ended {
		t.Errorf("%q, %+v", got, j.so)
	}
	if got := ServicePrefix([]string{"postgres", "db"}); got != "[service:postgres-db] " {
		t.Errorf("%q", got)
	}
}

func FuzzLinesOfAJournalAreFitToBePrinted(f *testing.F) {
	f.Add([]byte(`{"__CURSOR":"a","MESSAGE":"ready","SYSLOG_IDENTIFIER":"postgres","_PID":"33"}` + "\n"))
	f.Add([]byte(`{"MESSAGE":[27,91,256,-1]}` + "\n" + `{"MESSAGE":null}` + "\n"))
	f.Add([]byte(`{"MESSAGE":{"a":"\u0000"},"_PID":"\u001b[2J"}` + "\n"))
	f.Fuzz(func(t *testing.T, journal []byte) {
		shown := 0
		j := &journalLines{end: func(error) {}, prefix: ServicePrefix([]string{"a"}), show: func(line string) {
			if shown += len(line); !strings.HasPrefix(line, "[service:a] ") || printable.Line(line[12:]) != line[12:] && len(line) < 300 {
				t.Errorf("%q", line)
			}
		}}
		for range 3 {
			_, _ = j.Write(journal[:len(journal)/2])
			_, _ = j.Write(journal[len(journal)/2:])
		}
		if shown > 2*mostFollowed || len(j.rest) > mostLine || len(j.so.Cursor) > 500 {
			t.Errorf("%d bytes shown, %d kept, a cursor of %d", shown, len(j.rest), len(j.so.Cursor))
		}
	})
}

func TestAFloodOfLinesIsCut(t *testing.T) {
	shown, last, ends := 0, "", 0
	j := &journalLines{show: func(line string) { shown, last = shown+len(line), line }, end: func(error) { ends++ }}
	for range 100000 {
		fmt.Fprintf(j, "{\"MESSAGE\":\"%s\"}\n", strings.Repeat("y", 100))
	}
	if shown > 2*mostFollowed || !strings.HasPrefix(last, "(it has said more than 256 KiB") || ends == 0 {
		t.Errorf("%d bytes, %q, ended %d times", shown, last, ends)
	}
	j = &journalLines{show: func(string) {}, end: func(error) { ends = -1 }}
	for range 10000 { // also of what is not shown
		_, _ = j.Write(make([]byte, 1<<16))
	}
	if ends != -1 {
		t.Error("an endless line is read on")
	}
}
