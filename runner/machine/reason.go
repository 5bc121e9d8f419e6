package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

var errBootTimeout = errors.New("it did not come up in time")

// reasonNotUp returns why a machine is not up, in words for metrics.
func reasonNotUp(err error) failure.Reason {
	switch reason := failure.Of(err); {
	case errors.Is(err, errBootTimeout):
		return failure.BootTimeout
	case reason != "":
		return reason
	case systemd.IsAway(err):
		return failure.Bus
	}
	return failure.MachineDied
}

// reasonTimeout bounds the search for the reason of a failure.
const reasonTimeout = 5 * time.Second

// whyNotUp adds to the error of a start which units hang or failed, and the last lines of the machine's
// console.
func (s Store) whyNotUp(ctx context.Context, host *systemd.Bus, spec Spec, record Record, err error) error {
	ctx, cancel := context.WithTimeout(ctx, reasonTimeout)
	defer cancel()
	if errors.Is(err, errBootTimeout) {
		err = fmt.Errorf("it did not come up within %s (boot_timeout)", spec.BootTimeout)
	}
	var lines []string
	if record.Leader == nil {
		if leader, err := host.Leader(ctx, Name(record.ID)); err == nil {
			record.Leader = &leader
		}
	}
	if record.Leader != nil && record.Program == nil {
		lines = append(lines, insideReasons(ctx, record)...)
	}
	if console := consoleTail(ctx, record); len(console) > 0 {
		lines = append(lines, "the last lines of its console:")
		for _, line := range console {
			lines = append(lines, "  "+line)
		}
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w\n%s", err, strings.Join(lines, "\n"))
}

// insideReasons asks the machine's own service manager which units hang or failed.
func insideReasons(ctx context.Context, record Record) []string {
	bus, err := systemd.Machine(ctx, *record.Leader, record.RootUID)
	if err != nil {
		return []string{"its bus does not answer: " + printable.Line(err.Error())}
	}
	defer bus.Close()
	return unsettled(ctx, bus)
}

// unsettled asks a service manager which of its units are still starting, and which failed.
func unsettled(ctx context.Context, bus *systemd.Bus) (lines []string) {
	add := func(what string, units []systemd.ListedUnit, err error) {
		var names []string
		for _, u := range units {
			names = append(names, printable.Line(u.Name))
		}
		if len(names) > 5 {
			names = append(names[:5], fmt.Sprintf("and %d more", len(names)-5))
		}
		if err == nil && len(names) > 0 {
			lines = append(lines, what+": "+strings.Join(names, ", "))
		}
	}
	jobs, err := bus.Jobs(ctx)
	var running []systemd.ListedUnit
	for _, job := range jobs {
		if job.State == "running" {
			running = append(running, job)
		}
	}
	add("still starting", running, err)
	failed, err := bus.FailedUnits(ctx)
	add("failed", failed, err)
	return lines
}

// consoleTail returns the last lines of the machine's console.
func consoleTail(ctx context.Context, record Record) []string {
	// The last line is the most important one, and may still be on its way.
	_ = exec.CommandContext(ctx, "journalctl", "--sync").Run()
	out, err := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=12",
		fmt.Sprintf("--since=@%d", record.Created.Unix()),
		"_SYSTEMD_UNIT="+unitName(record.ID)).Output()
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = printable.Line(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// whyDead turns the error of a script into one that says what happened to its machine.
func (s Store) whyDead(ctx context.Context, record Record, err error) error {
	name := Name(record.ID)
	if stopped := (stoppedError{}); errors.As(err, &stopped) || !errors.Is(err, systemd.ErrGone) && record.Leader.Alive() {
		reason := cmp.Or(failure.Of(err), failure.Other)
		if errors.Is(err, systemd.ErrPassed) {
			reason = failure.Bus
		}
		return failure.Because(reason, fmt.Errorf("machine %s: %s", name, printable.Line(err.Error()))) // maybe in its bus's words
	}
	if record.Program != nil {
		end, err := s.AwaitEnd(ctx, record)
		if err == nil {
			err = errors.New(end.String())
		}
		return err
	}
	if caller := record.Caller; caller != nil && !caller.Alive() { // so gc has removed the machine
		return failure.Because(failure.Abandoned, fmt.Errorf("machine %s is gone: its gitlab-runner (process %d) has died", name, caller.PID))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*reasonTimeout)
	defer cancel()
	host, hostErr := systemd.Host(ctx)
	if hostErr != nil {
		return failure.Because(failure.Bus, fmt.Errorf("machine %s: %s", name, printable.Line(err.Error()))) // maybe in its bus's words
	}
	defer host.Close()
	if record.Leader.Alive() {
		// Only its bus may be gone, or the machine is about to end.
		short, cancel := context.WithTimeout(ctx, reasonTimeout)
		defer cancel()
		if _, _, stopErr := host.AwaitStopped(short, unitName(record.ID)); stopErr != nil {
			return failure.Because(failure.Bus, fmt.Errorf("machine %s: its D-Bus went away", name))
		}
	}
	_, result, stopErr := host.AwaitStopped(ctx, unitName(record.ID))
	if stopErr != nil {
		return failure.Because(failure.MachineDied, fmt.Errorf("machine %s died", name))
	}
	var status int32
	_ = host.Property(ctx, unitName(record.ID), "Service", "ExecMainStatus", &status)
	// systemd says so only of the first process, and the control group is gone.
	if result != "success" && result != "timeout" && limits.RanOut(record.Cgroup, record.CreatedUptime) {
		result = "oom-kill"
	}
	reason := failure.MachineDied
	switch result {
	case "oom-kill":
		reason = failure.OOM
	case "timeout":
		reason = failure.Timeout
	}
	return failure.Because(reason, howDied(record, result, status))
}

// howDied returns an error that says how the service of a machine ended. result and status are those of
// systemd.
func howDied(record Record, result string, status int32) error {
	name := Name(record.ID)
	switch {
	case result == "success":
		return fmt.Errorf("machine %s is gone: it was powered off, or cleaned up", name)
	case result == "exit-code" && status == 133: // systemd-nspawn(1): the machine rebooted
		return fmt.Errorf("machine %s was rebooted: a machine lives for one boot", name)
	case result == "oom-kill" && record.Service != "":
		return fmt.Errorf("machine %s ran out of memory (service_memory_max)", name)
	case result == "oom-kill":
		return fmt.Errorf("machine %s ran out of memory (memory_max)", name)
	case result == "timeout":
		return fmt.Errorf("machine %s was stopped: it ran longer than the job may (its timeout in GitLab, or job_timeout)", name)
	case result == "signal":
		return fmt.Errorf("machine %s was killed (signal %d)", name, status)
	}
	return fmt.Errorf("machine %s died (%s)", name, result)
}

// stoppedError is the error of a script whose machine did not obey, and was stopped with it. So this
// program has stopped the machine, and its end explains nothing.
type stoppedError struct{ error }

func (e stoppedError) Unwrap() error { return e.error }
