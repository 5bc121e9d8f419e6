// Package doctor says whether this host can run jobs, and what to do if not. A check looks
// at one thing, changes nothing, and asks the packages that do the work.
//
//	system.go  the kernel and systemd
//	room.go    directories, user ids, disk and memory
//	images.go  images, and what makes them
//	names.go   names of images that mean none, or two
//	gitlab.go  gitlab-runner
package doctor

import (
	"context"
	"fmt"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/storage"
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

// Doctor looks at a host.
type Doctor struct {
	// Jobs are run as this driver runs them.
	Jobs *job.Driver
	// Leftovers lists what nobody owns any more.
	Leftovers func(context.Context) ([]storage.Leftover, error)
}

// check looks at one thing. It changes nothing.
type check struct {
	name string
	look func(context.Context) []Finding
}

// checks are in the order in which a person would mend what they find: what
// the later ones need comes first.
func (d Doctor) checks(image string) []check {
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
		{"network", d.checkNetwork},
		{"guard", checkGuard},
		{"state directory", d.checkStateDir},
		{"backend", d.checkBackend},
		{"user namespaces", d.checkIdmap},
		{"user ids", checkUserIDs},
		{"disk space", d.checkDisk},
		{"memory", d.checkMemory},
		{"swap", d.checkSwap},
		{"programs", d.checkPrograms},
		{"playbooks", d.checkPlaybooks},
		{"images", d.checkImages},
		{"names", d.checkNames},
		{"leftovers", d.checkLeftovers},
		{"gitlab-runner", d.checkGitLabRunner},
		{"config.toml", func(context.Context) []Finding { return d.checkRegistration(registration) }},
	}
	if image != "" {
		all = append(all, check{"job", func(ctx context.Context) []Finding { return d.checkJob(ctx, image) }})
	}
	return all
}

// Examine says whether this host can run jobs, and what to do if not. If image is set, it
// runs a job of that image.
func (d Doctor) Examine(ctx context.Context, image string) ([]Finding, error) {
	checks := d.checks(image)
	if err := host.NeedRoot(); err != nil { // the others would only find that out
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
