package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"nspawn-runner/runner"
	"nspawn-runner/runner/host"
)

func top(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "top", Short: "Show what machines use, live",
		Long: "Show the machines of running jobs with what they do and use, against their limits.\n" +
			"At a terminal the table is live; q ends it. Elsewhere, or with --json, it is\n" +
			"printed once.",
		Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error {
			if !asJSON && host.IsTerminal(os.Stdin) && host.IsTerminal(os.Stdout) && os.Getenv("TERM") != "dumb" {
				return screen{in: os.Stdin, out: os.Stdout, look: h.Machines}.run(ctx)
			}
			return listMachines(ctx, h, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, once")
	return c
}

// screen shows machines live on a terminal.
type screen struct {
	in, out *os.File
	// look lists the machines, with what they use since an earlier list.
	look func(ctx context.Context, earlier []runner.Machine) ([]runner.Machine, error)
}

// What a terminal is told: console_codes(4), and xterm's control sequences for the other
// screen, which leaves what was on the terminal as it was.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	endLine     = "\x1b[K\r\n" // erases what an earlier frame had behind it
	eraseBelow  = "\x1b[J"
)

// frameEvery is how often the screen is drawn.
const frameEvery = time.Second

// run draws until q is typed, the terminal goes away or ctx ends, which is the end that a
// signal brings. Whatever ends it, the terminal is as before.
func (s screen) run(ctx context.Context) (err error) {
	was, err := term.MakeRaw(int(s.in.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		_, writeErr := io.WriteString(s.out, leaveScreen)
		err = errors.Join(err, writeErr, term.Restore(int(s.in.Fd()), was))
	}()
	if _, err := io.WriteString(s.out, enterScreen); err != nil {
		return err
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	quit := make(chan struct{})
	go func() { s.awaitQuit(); close(quit) }()
	frames := time.NewTicker(frameEvery)
	defer frames.Stop()
	var machines []runner.Machine
	for again := true; ; {
		if again {
			if machines, err = s.look(ctx, machines); err != nil {
				return err
			}
		}
		if err := s.draw(machines); err != nil {
			return err
		}
		select {
		case <-frames.C:
			again = true
		case <-resized:
			again = false // what was looked up a moment ago, in the new size
		case <-quit:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitQuit reads keys until one ends the screen. In raw mode Ctrl-C is a key.
func (s screen) awaitQuit() {
	keys := make([]byte, 64)
	for {
		n, err := s.in.Read(keys)
		if err != nil || bytes.ContainsAny(keys[:n], "qQ\x03\x04") {
			return
		}
	}
}

// draw draws one frame over the one before, in one write, so that nothing flickers.
func (s screen) draw(machines []runner.Machine) error {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	frame := bytes.NewBufferString(toTop)
	for i, line := range screenLines(machines, height) {
		if i > 0 {
			frame.WriteString(endLine)
		}
		// All is ASCII: a byte is a column. In the last column, erasing to the end of the line
		// would erase what was just written.
		frame.WriteString(line[:min(len(line), width-1)])
	}
	frame.WriteString(eraseBelow)
	_, err = s.out.Write(frame.Bytes())
	return err
}

// screenLines are the lines of a frame, at most as many as fit.
func screenLines(machines []runner.Machine, height int) []string {
	jobs, services := 0, 0
	for _, m := range machines {
		if m.Service == "" {
			jobs++
		} else {
			services++
		}
	}
	lines := []string{fmt.Sprintf("nspawn-runner: jobs %d, services %d; q quits", jobs, services), ""}
	var table bytes.Buffer
	rows := newTable(&table)
	fmt.Fprintln(rows, machineHeadings)
	for _, m := range machines {
		fmt.Fprintln(rows, machineRow(m))
	}
	_ = rows.Flush() // a buffer takes all
	lines = append(lines, strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n")...)
	if len(lines) > height {
		hidden := len(lines) - height + 1
		lines = append(lines[:max(0, height-1)], fmt.Sprintf("and %d more", hidden))
	}
	return lines
}
