package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"al.essio.dev/pkg/shellescape"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// Try executes a script in a machine of its own that lasts no longer. Its
// error, when the script fails, is a *gitlab.BuildFailure with the code.
func (h *Host) Try(ctx context.Context, image, shell string, script io.Reader, streams Streams) error {
	return h.try(ctx, image, machine.Script{
		Source: script, Shell: shell, Label: "try",
		Stdout: streams.Out, Stderr: streams.Err,
	})
}

func (h *Host) try(ctx context.Context, image string, script machine.Script) (err error) {
	if err := h.needHost(); err != nil {
		return err
	}
	if err := h.machines().Collect(ctx); err != nil {
		h.note("warning: clean up after dead jobs: %v", err)
	}
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	job := gitlab.Job{ID: ownID("try"), Image: image}
	job.Owner = job.ID
	if err := h.start(ctx, job, &self, Everything); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.end(ctx, job.ID)) }()
	return h.exec(ctx, job, "", script)
}

// ownID is an id for a machine that is no job's: GitLab's ids are numbers.
func ownID(what string) string { return what + "-" + strings.ToLower(rand.Text()[:8]) }

// end makes a machine of ours gone, also if ctx is over.
func (h *Host) end(ctx context.Context, id string) error {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return h.machines().Stop(ending, id, allowed)
}

// allowed is for who made the machine.
func allowed(machine.Record) error { return nil }

// CommandScript is a shell script that executes one command, its words
// untouched by the shell.
func CommandScript(argv []string) string {
	return fmt.Sprintf("exec %s\n", shellescape.QuoteCommand(argv))
}
