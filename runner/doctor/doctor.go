// Package doctor says whether this host can run jobs, and what to do if not. A check looks
// at one thing, changes nothing, and asks the packages that do the work.
//
//	examine.go  all the checks, in their order
//	system.go   the kernel and systemd
//	apparmor.go profiles of AppArmor
//	room.go     directories, user ids, disk and memory
//	images.go   images, and what makes them
//	names.go    names of images that mean none, or two
//	gitlab.go   gitlab-runner
package doctor

import (
	"context"
	"fmt"

	"nspawn-runner/runner/job"
	"nspawn-runner/runner/leftover"
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
	Leftovers func(context.Context) ([]leftover.Item, error)
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
