// Package failure says why a stage failed, in a word of a fixed list: what metrics count,
// and journal fields name. The words are an administrator's, not a job's.
package failure

import "errors"

// Reason is one of the constants below.
type Reason string

// The reasons why stages fail.
const (
	NoImage     Reason = "no_image"     // the job's image, or a service's, is not there
	Policy      Reason = "policy"       // the runner does not allow what the job asks for
	NoDisk      Reason = "no_disk"      // the host has too little free space to begin
	NoMemory    Reason = "no_memory"    // the host has too little memory to begin
	BootTimeout Reason = "boot_timeout" // the machine did not come up in time
	Network     Reason = "network"      // the machine's network could not be made
	Service     Reason = "service"      // a service of the job could not be used
	Pull        Reason = "pull"         // the image of a service could not be had from its registry
	OOM         Reason = "oom"          // the machine ran out of memory
	Tasks       Reason = "tasks"        // the machine reached its limit of processes
	Disk        Reason = "disk"         // the machine's disk is full
	MachineDied Reason = "machine_died" // the machine ended before its script
	Timeout     Reason = "timeout"      // the machine ran longer than the job may
	Bus         Reason = "bus"          // D-Bus of the host or of the machine went away
	Abandoned   Reason = "abandoned"    // the job's gitlab-runner died, or the host was restarted
	Other       Reason = "other"        // a failure of the driver or the host, of another kind
)

// Reasons are all of them.
var Reasons = []Reason{NoImage, Policy, NoDisk, NoMemory, BootTimeout, Network, Service, Pull, OOM, Tasks, Disk, MachineDied, Timeout, Bus, Abandoned, Other}

// because is an error with its reason.
type because struct {
	error
	reason Reason
}

func (b because) Unwrap() error { return b.error }

// Because is an error with the same text that has a reason, unless it has one already: who
// is nearer to what failed knows better. Of nil it is nil.
func Because(reason Reason, err error) error {
	if err == nil || Of(err) != "" {
		return err
	}
	return because{err, reason}
}

// Of is the reason of an error, "" if none is known.
func Of(err error) Reason {
	var found because
	if errors.As(err, &found) {
		return found.reason
	}
	return ""
}
