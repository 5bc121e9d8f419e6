package machine

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// piped is a pipe from which a text can be read.
func piped(t *testing.T, text string) *os.File {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	if _, err := writer.WriteString(text); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	return reader
}

func TestTheSignalThatEndedAProgramIsWhatSystemdNspawnSays(t *testing.T) {
	for said, want := range map[string][2]string{
		"Container run-7-service1 terminated by signal SEGV.\n":                      {"SEGV", ""},
		"a warning\nContainer run-7-service1 terminated by signal RTMIN+3.\nanother": {"RTMIN+3", "a warning\nanother\n"},
		"Container run-7 terminated by signal \x1b[31m.\n":                           {"", "Container run-7 terminated by signal \x1b[31m.\n"},
		"": {"", ""},
	} {
		var passed bytes.Buffer
		c := child{errors: piped(t, said)}
		if signal := c.listen(&passed); signal != want[0] || passed.String() != want[1] {
			t.Errorf("%q: %q, %q", said, signal, &passed)
		}
	}
}

func TestAMachineIsReadyWhenItsStarterSaysHello(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	var passed bytes.Buffer
	c := child{output: piped(t, "\x00the first line\n")}
	c.relay(&passed)
	told := make([]byte, 100)
	n, err := socket.Read(told)
	if !c.greeted || passed.String() != "the first line\n" || err != nil || string(told[:n]) != "READY=1" {
		t.Errorf("%v, %q, %v, %q", c.greeted, &passed, err, told[:n])
	}
	for _, other := range []string{"", "an error of something else"} {
		passed.Reset()
		c := child{output: piped(t, other)}
		if c.relay(&passed); c.greeted || passed.Len() > 0 {
			t.Errorf("%q counts as hello, %q", other, &passed)
		}
	}
}

func TestAProgramsOutputThatIsKeptOpenElsewhereKeepsItsSupervisorNot(t *testing.T) {
	output, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	c := child{output: output, errors: piped(t, "")}
	if _, err := writer.WriteString("\x00the last line\n"); err != nil {
		t.Fatal(err)
	}
	var passed bytes.Buffer
	done := make(chan struct{})
	go func() {
		c.relay(&passed)
		close(done)
	}()
	c.readFor(100 * time.Millisecond)
	<-done
	if passed.String() != "the last line\n" {
		t.Errorf("%q", &passed)
	}
}

func TestTheJournalIsNotFlooded(t *testing.T) {
	var journal bytes.Buffer
	j := journalled{to: &journal}
	for range 1000 {
		if n, err := j.Write([]byte("a line\nanother\n")); n != 15 || err != nil {
			t.Fatal(n, err)
		}
	}
	if lines := bytes.Count(journal.Bytes(), []byte("\n")); lines < consoleLines || lines > consoleLines+2 {
		t.Errorf("%d lines", lines)
	}
	journal.Reset()
	j = journalled{to: &journal}
	if n, err := j.Write(make([]byte, 10000)); n != 10000 || err != nil || journal.Len() > consoleLines+2 {
		t.Errorf("%d bytes that end a line each: %d, %v", journal.Len(), n, err)
	}
}
