package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"nspawn-runner/runner/printable"
)

// finding is what a check found: a line of the doctor's.
type finding struct {
	Check string `json:"check"`
	State state  `json:"state"`
	Found string `json:"found"`
	ToDo  string `json:"to_do,omitempty"`
}

// state says what a finding means for jobs.
type state string

const (
	good    state = "ok"
	warning state = "warning" // jobs run, but not as they should
	bad     state = "bad"     // jobs do not run
)

// check looks at one thing. It changes nothing.
type check struct {
	name string
	look func(context.Context) []finding
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
		{"config.toml", func(context.Context) []finding { return h.checkRegistration(registration) }},
	}
	if job != "" {
		all = append(all, check{"job", func(ctx context.Context) []finding { return h.checkJob(ctx, job) }})
	}
	return all
}

// Doctor says whether this host can run jobs, and what to do if not. If job is
// set, it runs a job of that image. It is an error when something is bad.
func (h *Host) Doctor(ctx context.Context, job string, asJSON bool) error {
	checks := h.checks(job)
	if err := needRoot(); err != nil { // the others would only find that out
		checks = []check{{"root", func(context.Context) []finding { return isBad("run it as root", "%v", err) }}}
	}
	all := []finding{}
	for _, check := range checks {
		for _, f := range check.look(ctx) {
			f.Check, f.Found, f.ToDo = check.name, printable.Line(f.Found), printable.Line(f.ToDo)
			all = append(all, f)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	print := h.printFindings
	if asJSON {
		print = func(all []finding) error { return h.printJSON(all) }
	}
	if err := print(all); err != nil {
		return err
	}
	var broken []string
	for _, f := range all {
		if f.State == bad {
			broken = append(broken, f.Check)
		}
	}
	if broken != nil {
		return fmt.Errorf("this host is not well: %s", strings.Join(slices.Compact(broken), ", "))
	}
	return nil
}

func (h *Host) printFindings(all []finding) error {
	table := tabwriter.NewWriter(h.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.State, f.Check, f.Found)
		if f.ToDo != "" {
			fmt.Fprintf(table, "\t\t-> %s\n", f.ToDo)
		}
	}
	return table.Flush()
}

// isGood, isWarning and isBad are the result of a check that finds one thing.
func isGood(format string, args ...any) []finding {
	return []finding{{State: good, Found: fmt.Sprintf(format, args...)}}
}

func isWarning(toDo, format string, args ...any) []finding {
	return []finding{{State: warning, Found: fmt.Sprintf(format, args...), ToDo: toDo}}
}

func isBad(toDo, format string, args ...any) []finding {
	return []finding{{State: bad, Found: fmt.Sprintf(format, args...), ToDo: toDo}}
}
