//go:build faults

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/systemd"
)

// Built for tests, the program does at its marks what these variables say. With
// NSPAWN_RUNNER_ANSWER_LIMIT it waits for that time, and not longer, for a bus to answer.
//
// With NSPAWN_RUNNER_MARKS it prints a line at each: that word, a colon, and the
// mark, so that whoever reads it can do something to the host at that moment.
//
// With NSPAWN_RUNNER_STOP_AT it stops when it comes to the mark of that name, as if by
// kill -STOP, until SIGCONT.
//
// With NSPAWN_RUNNER_KILL_AT it dies at the mark of that number, or that name,
// as if by kill -9.
func init() {
	if limit, err := time.ParseDuration(os.Getenv("NSPAWN_RUNNER_ANSWER_LIMIT")); err == nil {
		systemd.AnswerLimit = limit
	}
	var hooks []func(mark string)
	if who := os.Getenv("NSPAWN_RUNNER_MARKS"); who != "" {
		hooks = append(hooks, func(mark string) { fmt.Fprintf(os.Stderr, "%s: %s\n", who, mark) })
	}
	if at := os.Getenv("NSPAWN_RUNNER_STOP_AT"); at != "" {
		hooks = append(hooks, stopAt(at))
	}
	if at := os.Getenv("NSPAWN_RUNNER_KILL_AT"); at != "" {
		hooks = append(hooks, killAt(at))
	}
	if hooks != nil {
		fault.Hook = func(mark string) {
			for _, hook := range hooks {
				hook(mark)
			}
		}
	}
}

func stopAt(at string) func(mark string) {
	var stop sync.Once
	return func(mark string) {
		if mark == at {
			// A signal to this thread: sent to the process, another one may get it, and this
			// one goes a bit further.
			stop.Do(func() {
				runtime.LockOSThread()
				_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
				runtime.UnlockOSThread()
			})
		}
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
