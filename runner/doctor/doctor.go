// Package doctor says whether this host can run jobs, and what to do if not. A check looks
// at one thing, changes nothing, and asks the packages that do the work.
//
//	examine.go    all the checks, in their order
//	system.go     the kernel and systemd
//	sysctl.go     the limits that it advises, as a file of sysctl.d(5)
//	apparmor.go   profiles of AppArmor
//	userns.go     settings by which jobs cannot make user namespaces
//	room.go       directories, user ids, disk and memory
//	images.go     images, and what makes them
//	names.go      names of images that mean none, or two
//	gitlab.go     gitlab-runner
//	installed.go  what is installed beside the program, or twice
//	fix.go        what the doctor mends by itself
package doctor

import (
	"context"
	"fmt"
	"strings"

	"nspawn-runner/runner/job"
	"nspawn-runner/runner/leftover"
	"nspawn-runner/runner/printable"
)

// Finding is what a check found: a line of the doctor's.
type Finding struct {
	Check string `json:"check"` // what was looked at
	State State  `json:"state"`
	Found string `json:"found"`
	ToDo  string `json:"to_do,omitempty"` // what mends it, "" if nothing has to be done
	Fix   *Fix   `json:"fix,omitempty"`   // mends it, nil if only the administrator should
}

// Fix mends what a finding is about. There is one only where that can do no harm: it writes
// files of its own, sets limits that are too low, and removes what is nspawn-runner's. It
// never changes what somebody else made, and again it does nothing.
type Fix struct {
	// What is to be done, for people: "write FILE".
	What string
	do   func(ctx context.Context) error
}

// MarshalText is What, for JSON.
func (f Fix) MarshalText() ([]byte, error) { return []byte(f.What), nil }

// Do does it.
func (f Fix) Do(ctx context.Context) error {
	if err := f.do(ctx); err != nil {
		return fmt.Errorf("%s: %s", f.What, printable.Line(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return nil
}

// withFix is a finding with what mends it.
func withFix(all []Finding, do func(context.Context) error, what string, args ...any) []Finding {
	for i := range all {
		all[i].Fix = &Fix{What: printable.Line(fmt.Sprintf(what, args...)), do: do}
	}
	return all
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
