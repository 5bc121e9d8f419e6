// Command nspawn-runner runs each job of GitLab CI in its own throw-away,
// fully booted Debian system under systemd-nspawn.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"nspawn-runner/runner/gitlab"
)

func main() {
	ctx, stop := notify()
	defer stop()
	root := commands()
	root.SetArgs(os.Args[1:])
	called, err := root.ExecuteContextC(ctx)
	os.Exit(exitCode(called.Annotations["exit"], err))
}

// notify returns a context that ends with the first signal to stop. SIGPIPE
// is asked for and dropped: a write to a closed pipe shall be an error, not
// the end of a cleanup.
func notify() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		for s := range signals {
			if s != syscall.SIGPIPE {
				cancel(fmt.Errorf("stopped by a signal (%v)", s))
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// How a command's error becomes an exit code.
const (
	exitAsStage = "stage" // as gitlab-runner wants it
	exitAsTry   = "try"   // the script's own code
)

// exitCode prints the error of a command and returns its exit code.
func exitCode(kind string, err error) int {
	if err == nil {
		return 0
	}
	var build *gitlab.BuildFailure
	isBuild := errors.As(err, &build)
	// A script that failed has said itself why.
	if !isBuild || build.Err != nil {
		fmt.Fprintf(os.Stderr, "nspawn-runner: %v\n", err)
	}
	switch kind {
	case exitAsStage:
		code, err := gitlab.ExitCode(os.Getenv, err)
		if err != nil {
			fmt.Fprintf(os.Stderr, "nspawn-runner: %v\n", err)
		}
		return code
	case exitAsTry:
		if isBuild && build.Err == nil {
			return build.Code
		}
	}
	if isBuild {
		return build.Code
	}
	// Also what gitlab-runner calls by mistake is not the job's fault.
	if code, err := strconv.Atoi(os.Getenv("SYSTEM_FAILURE_EXIT_CODE")); err == nil && code > 0 && code < 256 {
		return code
	}
	return 1
}
