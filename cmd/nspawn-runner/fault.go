//go:build faults

package main

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/systemd"
)

// Built for tests, the program does one of two things at its marks. With
// NSPAWN_RUNNER_ANSWER_LIMIT it waits for that time, and not longer, for a bus to answer.
//
// With NSPAWN_RUNNER_KILL_AT it dies at the mark of that number, or that name,
// as if by kill -9.
//
// With NSPAWN_RUNNER_MARKS it prints a line at each: that word, a colon, and the
// mark, so that whoever reads it can do something to the host at that moment.
func init() {
	if at := os.Getenv("NSPAWN_RUNNER_KILL_AT"); at != "" {
		fault.Hook = killAt(at)
	}
	if limit, err := time.ParseDuration(os.Getenv("NSPAWN_RUNNER_ANSWER_LIMIT")); err == nil {
		systemd.AnswerLimit = limit
	}
	if who := os.Getenv("NSPAWN_RUNNER_MARKS"); who != "" {
		fault.Hook = func(mark string) { fmt.Fprintf(os.Stderr, "%s: %s\n", who, mark) }
	}
}

func killAt(at string) func(mark string) {
	number, _ := strconv.ParseInt(at, 10, 64)
	var passed atomic.Int64
	return func(mark string) {
		if passed.Add(1) == number || mark == at {
			fmt.Fprintf(os.Stderr, "killed at: %s\n", mark)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
	}
}
