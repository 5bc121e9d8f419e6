// Package machine runs booted systems for jobs: it starts machines, executes scripts in
// them, and removes them.
//
// A job has a main machine, which executes its scripts, and may have machines for services. Each
// machine has an id and a record, which names its job and its role. Callers name jobs: all machines of
// a job end together.
//
// On the host, a machine is one transient service of systemd and one directory in the state directory,
// with the machine's id as its name:
//
//	.machines/ID/record.json   what it is (Record)
//	.machines/ID/...           its writable layer (package storage)
//
// The directory is also the machine's lock: a process with an exclusive flock(2) on it may start or
// stop the machine. Scripts are executed without the lock. The service executes the hidden command
// "boot" of this program (Boot), which mounts the machine's root in a mount namespace of its own and
// becomes systemd-nspawn.
//
// Records and locks:
//
//	record.go         what is known of a machine
//	job.go            the machines of a job, and their stop
//	lock.go           the lock of a machine
//	index.go          finds a machine without the configuration
//	ids.go            ranges of user ids
//	note.go           short files in a machine's directory: result.go, stage.go
//
// Start, in the driver:
//
//	start.go          the steps of a start
//	unit.go           the settings of the service
//	slice.go          limits for all machines together
//	alongside.go      what happens while a machine boots
//	nested.go         what containers in the machine need
//	handover.go       the last step: delegate.go and limits of control groups
//
// Start, in the machine's service:
//
//	boot.go           becomes systemd-nspawn
//	furnish.go        files that depend on the machine: rootfiles.go writes them
//	binds.go          files of the host in the machine: mounts.go mounts them
//	beneath.go        mounts beneath the root, for containers
//	calls.go          filters of system calls
//	coredump.go       whether core dumps are allowed
//
// Machines without an init:
//
//	program.go        what they have in place of a boot
//	supervise.go      their service, and output.go, what the program printed last
//	ended.go          how the program ended
//	endprograms.go    asks programs to end
//
// Scripts:
//
//	exec.go           executes a script
//	script.go         its command line, variables and settings
//	scriptunit.go     its unit in the machine
//	streams.go        its output
//	entrance.go       commands of a build, which do not use the machine's bus
//
// What happens to machines:
//
//	reason.go         why a machine is not up, or has ended
//	words.go, tail.go last lines
//	mishap.go         what happened to the services of a job
//	follow.go         shows what services say: followprogram.go for programs
//	standing.go       what machines do: the table of machines
//	usage.go, disk.go what they use
//
// End:
//
//	stop.go           removes a machine
//	halt.go           stops its service, and cgroup.go, the last processes
//	fuse.go           aborts its FUSE connections
//	shutdown.go       shuts a build's machine down: witness.go reports how
//	collect.go        removes abandoned machines
//	callerdir.go      removes the directory of a dead gitlab-runner
//	leftover.go       lists what gc removes
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
	// Dir has a directory for each machine, Trash the trees that are to be deleted. Both are on
	// one file system.
	Dir, Trash string
	// Program is the absolute path of this program, for services of the host.
	Program string
	// Collected, if set, is called for each main machine that Collect has removed. The cleanup of
	// its job was never called.
	Collected func(Collected)
	// Log receives a line for each thing done, for --verbose.
	Log func(format string, args ...any)
}

// Collected describes the job of a machine that was up and that Collect has removed.
type Collected struct {
	Job, Owner, Image string
	Project           int64
	// Result is the text of KeepResult, nil if there is none.
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
	// Job is the id of the machine's job. It must be safe in a path.
	Job string
	// Role is the machine's role in the job, "" for Main.
	Role Role
	// Owner is opaque: equal ids of different owners are different jobs. "" is an unknown caller.
	Owner string
	// Project is the number of the job's project in GitLab, 0 if it is not known.
	Project int64
	// Caller is the gitlab-runner that the machine is for, if it is known. When it is dead, the
	// machine is abandoned.
	Caller *host.Process
	// CallerDir is that gitlab-runner's directory for the job. It is removed if the caller dies.
	CallerDir *CallerDir
	// Image and Generation are the names of an image and its generation, Chroot is the path of the
	// generation's tree.
	Image, Generation, Chroot string
	Backend                   storage.Backend
	// Hostname is the machine's host name, "" for the machine's name.
	Hostname string
	// Masked are units that the machine does not start, besides those that no machine starts.
	Masked []string
	// Privileged machines have no user namespace.
	Privileged bool
	// Network is the network of the machine. If Joins is set, it is the first process of the job's
	// main machine: this machine shares the network of the main machine and ends with it. Network
	// is then that of the main machine.
	Network network.Network
	Joins   *host.Process
	// Names are host names for its loopback, besides its own host name.
	Names []string
	// Service is the name of the service in the job, a printable line; "" if it is not a service.
	Service string
	// Aliases are those of Names that lead to this service. Followed says that the job's log shows
	// what the service says.
	Aliases  []string
	Followed bool
	// CloudMetadata lets the machine reach the metadata service of a cloud.
	CloudMetadata bool
	// NoFUSE leaves out /dev/fuse, NoNesting what containers in the machine need.
	NoFUSE, NoNesting bool
	// BootTimeout bounds the start, MaxRuntime the whole life of the machine.
	BootTimeout, MaxRuntime time.Duration
	// Limits are for all processes of the machine together.
	Limits Limits
	// Together are limits for all machines of the host together.
	Together Together
	// Beside, if set, is called while the machine boots, as soon as its first process exists: from
	// then on, its network can be joined. Its context ends if the boot fails. Start returns after
	// Beside has returned, and fails if Beside fails.
	Beside func(ctx context.Context, leader host.Process) error
	// Recorded, if set, is called when the machine is on record. From then on, removals see that
	// its generation is in use.
	Recorded func()
	// Binds are files and directories of the host that the machine sees. Devices are those of the
	// host that it may use, besides those of systemd-nspawn.
	Binds   []Bind
	Devices []Device
	// Shell is the path, in the machine, of the shell for scripts that name none.
	Shell string
	// Environment are variables that all scripts get.
	Environment map[string]string
	// Quiet leaves out of the job's log what the job used.
	Quiet bool
	// Program is what the machine executes instead of an init. If it is nil, the machine boots.
	Program *Program
}

// Program is what a machine without an init executes.
type Program struct {
	// Plan is sent to the starter. It is never written to a disk, because it may have secrets.
	Plan starter.Plan
	// StopSignal asks the program to end.
	StopSignal unix.Signal
}

// Role is the role of a machine in its job: a few lower-case letters and digits.
type Role string

// Main is the role of the machine that executes a job's scripts.
const Main Role = "main"

// id is the id of the machine. The main machine has the id of its job, so that administrators know the
// names of its unit and its directory, and its host name.
func (spec Spec) id() string {
	if role := cmp.Or(spec.Role, Main); role != Main {
		return spec.Job + "-" + string(role)
	}
	return spec.Job
}

// Limits are those of systemd.resource-control(5). math.MaxUint64 stands for no limit. Memory and disk
// are in bytes. CPUQuota is in processors, 0 for no quota.
type Limits struct {
	MemoryMax, MemorySwapMax uint64
	CPUQuota                 float64
	CPUWeight, IOWeight      uint64
	TasksMax                 uint64
	// DiskMax is how many bytes the machine may write to its root, 0 for no limit.
	DiskMax uint64
	// OpenFiles is how many files one process may have open: the hard RLIMIT_NOFILE.
	OpenFiles uint64
}

// Name is the name of the machine with an id, in machinectl and as its host name.
func Name(id string) string { return "run-" + id }

// unitName is the name of the machine's service on the host.
func unitName(id string) string { return "nspawn-runner-" + id + ".service" }

func (s Store) dir(id string) string { return filepath.Join(s.Dir, id) }

func (s Store) logf(format string, args ...any) {
	if s.Log != nil {
		s.Log(format, args...)
	}
}
