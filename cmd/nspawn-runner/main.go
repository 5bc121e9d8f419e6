// Command nspawn-runner runs each job of GitLab CI in its own throw-away,
// fully booted Debian system under systemd-nspawn.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"nspawn-runner/runner/gitlab"
)

func main() {
	ctx, stop := notify()
	defer stop()
	root := commands()
	if len(os.Args) > 1 && os.Args[1] == cobra.ShellCompRequestCmd {
		unmarkUsages(root)
	}
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

// exitAsStage marks the commands whose exit code is the one that gitlab-runner
// wants of a stage.
const exitAsStage = "stage"

// exitCode prints the error of a command and returns its exit code.
func exitCode(kind string, err error) int {
	if err == nil {
		return 0
	}
	if status := exitStatus(0); errors.As(err, &status) {
		return int(status)
	}
	if !reported(err) {
		fmt.Fprintf(os.Stderr, "nspawn-runner: %v\n", err)
	}
	if kind == exitAsStage {
		code, err := gitlab.ExitCode(os.Getenv, err)
		if err != nil {
			fmt.Fprintf(os.Stderr, "nspawn-runner: %v\n", err)
		}
		return code
	}
	if build := (*gitlab.BuildFailure)(nil); errors.As(err, &build) {
		return build.Code
	}
	// Also what gitlab-runner calls by mistake is not the job's fault.
	if code, err := strconv.Atoi(os.Getenv("SYSTEM_FAILURE_EXIT_CODE")); err == nil && code > 0 && code < 256 {
		return code
	}
	return 1
}

// exitStatus is the exit code of something else that this program passes on.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// reported says whether an error is only that a script failed: the script's own
// output says why. Of joined errors all must be that.
func reported(err error) bool {
	switch err := err.(type) {
	case *gitlab.BuildFailure:
		return err.Err == nil
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(err.Unwrap(), func(e error) bool { return !reported(e) })
	}
	return false
}
