//go:build faults

package main

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"nspawn-runner/runner/fault"
)

// Built for tests, the program dies at the mark whose number KILL_AT says, as if
// by kill -9, or at the one that it names.
func init() {
	at := os.Getenv("NSPAWN_RUNNER_KILL_AT")
	if at == "" {
		return
	}
	number, _ := strconv.ParseInt(at, 10, 64)
	var passed atomic.Int64
	fault.Hook = func(mark string) {
		if passed.Add(1) == number || mark == at {
			fmt.Fprintf(os.Stderr, "killed at: %s\n", mark)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
	}
}
