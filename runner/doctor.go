package runner

import (
	"context"
	"fmt"

	"nspawn-runner/runner/printable"
)

// Finding is what a check found: a line of the doctor's.
type Finding struct {
	Check string `json:"check"` // what was looked at
	State State  `json:"state"`
	Found string `json:"found"`
	ToDo  string `json:"to_do,omitempty"` // what mends it, "" if nothing has to be done
}

// State says what a finding means for jobs.
type State string

// The states of findings.
const (
	Good    State = "ok"
	Warning State = "warning" // jobs run, but not as they should
	Bad     State = "bad"     // jobs do not run
)

// check looks at one thing. It changes nothing.
type check struct {
	name string
	look func(context.Context) []Finding
}

// checks are in the order in which a person would mend what they find: what
// the later ones need comes first.
func (h *Host) checks(job string) []check {
	all := []check{
		{"kernel", checkKernel},
		{"systemd", checkSystemd},
		{"cgroups", checkCgroups},
		{"shared limits", checkSharedLimits},
		{"huge pages", checkHugePages},
		{"core dumps", checkCoreDumps},
		{"bus", checkBus},
		{"machined", checkMachined},
		{"nspawn", checkNspawn},
		{"network", h.checkNetwork},
		{"guard", checkGuard},
		{"state directory", h.checkStateDir},
		{"backend", h.checkBackend},
		{"user namespaces", h.checkIdmap},
		{"user ids", checkUserIDs},
		{"disk space", h.checkDisk},
		{"memory", h.checkMemory},
		{"swap", h.checkSwap},
		{"programs", h.checkPrograms},
		{"playbooks", h.checkPlaybooks},
		{"images", h.checkImages},
		{"names", h.checkNames},
		{"leftovers", h.checkLeftovers},
		{"gitlab-runner", h.checkGitLabRunner},
		{"config.toml", func(context.Context) []Finding { return h.checkRegistration(registration) }},
	}
	if job != "" {
		all = append(all, check{"job", func(ctx context.Context) []Finding { return h.checkJob(ctx, job) }})
	}
	return all
}

// Doctor says whether this host can run jobs, and what to do if not. If job is
// set, it runs a job of that image.
func (h *Host) Doctor(ctx context.Context, job string) ([]Finding, error) {
	checks := h.checks(job)
	if err := needRoot(); err != nil { // the others would only find that out
		checks = []check{{"root", func(context.Context) []Finding { return isBad("run it as root", "%v", err) }}}
	}
	all := []Finding{}
	for _, check := range checks {
		for _, f := range check.look(ctx) {
			f.Check, f.Found, f.ToDo = check.name, printable.Line(f.Found), printable.Line(f.ToDo)
			all = append(all, f)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return all, nil
}

// isGood, isWarning and isBad are the result of a check that finds one thing.
func isGood(format string, args ...any) []Finding {
	return []Finding{{State: Good, Found: fmt.Sprintf(format, args...)}}
}

func isWarning(toDo, format string, args ...any) []Finding {
	return []Finding{{State: Warning, Found: fmt.Sprintf(format, args...), ToDo: toDo}}
}

func isBad(toDo, format string, args ...any) []Finding {
	return []Finding{{State: Bad, Found: fmt.Sprintf(format, args...), ToDo: toDo}}
}
