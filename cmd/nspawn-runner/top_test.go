package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"nspawn-runner/runner"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/machine"
)

// aMachine is a machine that is up.
func aMachine(id string) runner.Machine {
	return runner.Machine{
		Record: machine.Record{ID: id, Job: id, Image: "bookworm", Generation: "bookworm/20260101T000000Z", Backend: "overlay", Project: 4711, DiskMax: 10 << 30},
		Now:    "running", Stage: "build_script", AgeSeconds: 83,
		Use: &runner.MachineUse{Processor: 12, CPUs: 1.25, Written: 3 << 20, Disk: 42, Current: limits.Current{Memory: 300 << 20, MemoryMax: 2 << 30, CPUsMax: 2}},
	}
}

func TestTheTableOfMachinesShowsUsesAgainstLimits(t *testing.T) {
	service := aMachine("7-service1")
	service.Service, service.Stage, service.Use.MemoryMax, service.Use.CPUsMax, service.DiskMax = "postgres:16", "", 0, 0, 0
	starting := runner.Machine{Record: machine.Record{ID: "8", Image: "sid"}, Now: "starting", Stage: "prepare", AgeSeconds: 3700}
	var out bytes.Buffer
	if err := printMachines(&out, []runner.Machine{aMachine("7"), service, starting}); err != nil {
		t.Fatal(err)
	}
	want := `ID           STATE     PROJECT  IMAGE     STAGE                AGE    CPU      MEMORY     DISK     GENERATION                 BACKEND
7            running   4711     bookworm  build_script         1m23s  1.2/2.0  300M/2.0G  42%/10G  bookworm/20260101T000000Z  overlay
 7-service1  running   4711     bookworm  service postgres:16  1m23s  1.2      300M       3.0M     bookworm/20260101T000000Z  overlay
8            starting  -        sid       prepare              1h01m  -        -          -                                   
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

func TestCellsOfHostileNamesAreShortASCIIInOneLine(t *testing.T) {
	for _, name := range []string{"\x1b[2J\x1b]0;x\x07", "a\tb\nc\r", strings.Repeat("x", 1000), "äöü漢\u202e\u0301\u009b1m\xff", "   "} {
		m := aMachine("7")
		m.Service, m.Stage = name, name
		row := machineRow(m)
		if strings.Count(row, "\t") != 8 || len(row) > 200 || strings.ContainsFunc(row, func(r rune) bool { return r != '\t' && (r < ' ' || r > '~') }) {
			t.Errorf("%q: %q", name, row)
		}
	}
}

func TestAmountsTakeFiveColumnsAtMost(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0", 999: "999", 1000: "1.0K", 1 << 20: "1.0M", 10 << 20: "10M", 999 << 20: "999M", 1000 << 20: "1.0G", 1 << 63: "8192P"} {
		if got := amount(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}

func TestAScreenShowsNoMoreLinesThanTheTerminalHas(t *testing.T) {
	var machines []runner.Machine
	for i := range 30 {
		machines = append(machines, aMachine(fmt.Sprint(i)))
	}
	for height := 1; height < 40; height++ {
		lines := screenLines(machines, height)
		if len(lines) > height || height < 33 && !strings.HasPrefix(lines[len(lines)-1], "and ") {
			t.Errorf("height %d: %q", height, lines)
		}
	}
	if lines := screenLines(machines, 10); lines[9] != "and 24 more" || !strings.HasPrefix(lines[8], "5 ") {
		t.Errorf("%q", lines)
	}
}

// terminal is a pseudoterminal: pty(7).
func terminal(t *testing.T, width, height uint16) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	resize(t, master, width, height)
	return master, slave
}

func resize(t *testing.T, terminal *os.File, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		t.Fatal(err)
	}
}

// shown is what a terminal gets until it has a text.
func shown(t *testing.T, master *os.File, until string) (all string) {
	t.Helper()
	some := make([]byte, 1<<16)
	_ = master.SetReadDeadline(time.Now().Add(10 * time.Second))
	for !strings.Contains(all, until) {
		n, err := master.Read(some)
		if err != nil {
			t.Fatalf("no %q in %q: %v", until, all, err)
		}
		all += string(some[:n])
	}
	return all
}

func TestTheScreenRestoresTheTerminalOnEveryWayOut(t *testing.T) {
	broken := errors.New("the state directory went away")
	for _, c := range []struct {
		what string
		end  func(master *os.File, stop context.CancelCauseFunc)
		look error
		want error
	}{
		{"q", func(m *os.File, _ context.CancelCauseFunc) { _, _ = m.WriteString("xq") }, nil, nil},
		{"Ctrl-C", func(m *os.File, _ context.CancelCauseFunc) { _, _ = m.WriteString("\x03") }, nil, nil},
		{"a signal", func(_ *os.File, stop context.CancelCauseFunc) { stop(os.ErrProcessDone) }, nil, os.ErrProcessDone},
		{"an error", func(*os.File, context.CancelCauseFunc) {}, broken, broken},
	} {
		t.Run(c.what, func(t *testing.T) {
			master, slave := terminal(t, 100, 24)
			before, err := term.GetState(int(slave.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancelCause(t.Context())
			looks := 0
			s := screen{in: slave, out: slave, look: func(context.Context, []runner.Machine) ([]runner.Machine, error) {
				if looks++; looks > 1 && c.look != nil {
					return nil, c.look
				}
				return []runner.Machine{aMachine("7")}, nil
			}}
			ended := make(chan error, 1)
			go func() { ended <- s.run(ctx) }()
			shown(t, master, eraseBelow)
			c.end(master, stop)
			shown(t, master, leaveScreen)
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			after, err := term.GetState(int(slave.Fd()))
			if err != nil || *after != *before {
				t.Errorf("%v: the terminal is %+v, was %+v", err, after, before)
			}
		})
	}
}

func TestTheScreenIsDrawnInTheNewSizeAtOnceAndInOneWrite(t *testing.T) {
	master, slave := terminal(t, 100, 24)
	s := screen{in: slave, out: slave, look: func(context.Context, []runner.Machine) ([]runner.Machine, error) {
		return []runner.Machine{aMachine("7"), aMachine("8"), aMachine("9")}, nil
	}}
	ended := make(chan error, 1)
	go func() { ended <- s.run(t.Context()) }()
	frame := shown(t, master, eraseBelow)
	if !strings.Contains(frame, "\r\n9 ") || strings.Contains(frame, "\x1b[2J") || strings.Count(frame, enterScreen) != 1 {
		t.Errorf("%q", frame)
	}
	resize(t, master, 20, 5)
	_ = syscall.Kill(os.Getpid(), syscall.SIGWINCH) // it is not our controlling terminal
	frame = shown(t, master, "and 2 more")
	for line := range strings.SplitSeq(frame[strings.LastIndex(frame, toTop)+len(toTop):], "\r\n") {
		if text := strings.ReplaceAll(line, "\x1b[K", ""); len(text) >= 20 {
			t.Errorf("a line of %d columns: %q", len(text), text)
		}
	}
	_, _ = master.WriteString("q")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
