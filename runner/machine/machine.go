// Package machine runs booted systems for jobs: it starts machines, executes scripts in
// them, and removes them.
//
// A job has one machine that executes its scripts, and may have others beside it. Each has
// an id of its own, and a record that says for which job it is, and in which role. Jobs
// are what callers name: a job's machines end together.
//
// A machine is, on the host, one transient service under systemd and one
// directory in the state directory, named by its id:
//
//	.machines/ID/record.json   what it is (Record)
//	.machines/ID/...           its writable layer (package storage)
//
// The directory is also the machine's lock: whoever holds an exclusive
// flock(2) on it may start or stop the machine. Executing scripts needs no
// lock. The service's command is this program's own hidden command "boot"
// (Boot), which mounts the machine's root in a mount namespace of its own and
// becomes systemd-nspawn.
package machine

import (
	"cmp"
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/starter"
	"nspawn-runner/runner/storage"
)

// Store is the machines of one state directory.
type Store struct {
	// Dir holds a directory for each machine, Trash what waits for deletion.
	// Both lie on one file system.
	Dir, Trash string
	// Program is the absolute path of this program.
	Program string
	// Collected, if set, is told of each main machine that Collect has removed: no cleanup was
	// called for its job.
	Collected func(Collected)
	// Log receives a line for each thing done, for --verbose.
	Log func(format string, args ...any)
}

// Collected is what is known of the job of a machine that was up and that Collect removed.
type Collected struct {
	Job, Owner, Image string
	Project           int64
	// Result is what KeepResult kept, nil if that is nothing.
	Result []byte
	// Used is what its machines had used, as far as that was still known.
	Used []MachineUsage
}

// MachineUsage is what one machine of a job has used.
type MachineUsage struct {
	ID, Image string
	// Service is the name by which the job knows it, "" if it is none. FromRegistry says that
	// its image is of a registry.
	Service      string
	FromRegistry bool
	limits.Usage
}

// Spec says which machine to start.
type Spec struct {
	// Job is the id of the job that the machine is for; it has been checked to be harmless
	// in a path.
	Job string
	// Role is what the machine is to the job, "" for Main.
	Role Role
	// Owner is opaque: equal ids of different owners are different jobs.
	// "" is a caller that is not known.
	Owner string
	// Project is the number of the job's project in GitLab, 0 if it is not known.
	Project int64
	// Caller is the gitlab-runner the machine is for, if known: when it is
	// dead, nobody will stop the machine.
	Caller *host.Process
	// CallerDir is what that has on the host for the job; it goes when the caller dies.
	CallerDir *CallerDir
	// Image is the image's name, Generation its generation's, Chroot that
	// generation's path.
	Image, Generation, Chroot string
	Backend                   storage.Backend
	// Hostname is its own, "" for its name.
	Hostname string
	// Masked are units that it does not start, besides those that none does.
	Masked []string
	// Privileged machines have no user namespace.
	Privileged bool
	// Network is what it is attached to. Joins, if set, is the first process of the job's main
	// machine, whose network it shares and with which it ends; Network is then that one's.
	Network network.Network
	Joins   *host.Process
	// Names are host names of its own loopback, besides its own.
	Names []string
	// Service is the name by which the job knows it, if it is a service: a printable line.
	Service string
	// Aliases are a service's own among the names. Followed has the job be shown what it says.
	Aliases  []string
	Followed bool
	// CloudMetadata lets it reach what clouds tell their hosts.
	CloudMetadata bool
	// NoFUSE leaves out /dev/fuse, NoNesting what containers in it need.
	NoFUSE, NoNesting bool
	// BootTimeout bounds the start, MaxRuntime the machine's whole life.
	BootTimeout, MaxRuntime time.Duration
	// Limits hold for all of the machine's processes together.
	Limits Limits
	// Together hold for all machines of the host.
	Together Together
	// Beside, if set, is called with the machine's first process when that is there and the
	// machine boots: its network can be joined from then on. Its context ends when the boot
	// fails. The start ends when it has returned, and fails if it does.
	Beside func(ctx context.Context, leader host.Process) error
	// Recorded, if set, is called when the machine is on record: from then on
	// whoever removes generations sees that this one is in use.
	Recorded func()
	// Binds are files and directories of the host to be seen in the machine,
	// Devices those that it may use besides systemd-nspawn's.
	Binds   []Bind
	Devices []Device
	// Shell executes scripts that name none: a path in the machine.
	Shell string
	// Environment are variables that all scripts get.
	Environment map[string]string
	// Quiet leaves what the job used out of its log.
	Quiet bool
	// Program is what the machine executes in place of an init; nil boots it.
	Program *Program
}

// Program is what a machine without an init executes.
type Program struct {
	// Plan is what the starter is told. It is nowhere on the disk.
	Plan starter.Plan
	// StopSignal asks the program to end.
	StopSignal unix.Signal
}

// Role is what a machine is to its job: a few small letters.
type Role string

// Main is the role of the machine that executes a job's scripts.
const Main Role = "main"

// id is the id of the machine. That of a job's main machine is the job's, so that its
// unit, its host name and its directory are what administrators know.
func (spec Spec) id() string {
	if role := cmp.Or(spec.Role, Main); role != Main {
		return spec.Job + "-" + string(role)
	}
	return spec.Job
}

// Limits are what systemd.resource-control(5) says of them; math.MaxUint64 is no
// limit. Memory and disk are in bytes, CPUQuota is in processors, 0 for no quota.
type Limits struct {
	MemoryMax, MemorySwapMax uint64
	CPUQuota                 float64
	CPUWeight, IOWeight      uint64
	TasksMax                 uint64
	// DiskMax is how many bytes it may write to its root; 0 for no limit.
	DiskMax uint64
	// OpenFiles is how many one process may have open: RLIMIT_NOFILE, hard.
	OpenFiles uint64
}

// Name is the name of the machine with this id, as machinectl shows it and as
// its host name.
func Name(id string) string { return "run-" + id }

// unitName is the name of the machine's service on the host.
func unitName(id string) string { return "nspawn-runner-" + id + ".service" }

func (s Store) dir(id string) string { return filepath.Join(s.Dir, id) }

func (s Store) logf(format string, args ...any) {
	if s.Log != nil {
		s.Log(format, args...)
	}
}
