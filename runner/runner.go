// Package runner is the front door of nspawn-runner: what the command line and
// the Mage targets call.
//
//	runner.go       a host
//	new.go          New: puts the packages below together
//	event.go        what whoever looks on is told meanwhile, by tell.go
//	images.go       creating and entering images
//	maintenance.go  maintaining them; maintained.go: what became of one
//	generations.go  rolling back, pruning and removing them
//	show.go         what is known of them
//	registries.go   images of registries
//	machines.go     listing and entering machines
//	gc.go           removing what nobody owns
//	metrics.go      numbers for Prometheus
//	toml.go         the block for config.toml
//	version.go      of what this program was made
//
// Jobs are for package job, what is wrong with this host for package doctor. Operations
// return values and tell events; whoever calls prints them.
//
// The packages below do the work and know nothing of each other's: image makes chroots,
// machine runs systems on them, network connects those, storage gives them a writable
// root, systemd speaks D-Bus; gitlab and config only read and write text.
package runner

import (
	"io"

	"nspawn-runner/runner/cache"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/doctor"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/oci"
)

// Host is this host, with its images and machines.
type Host struct {
	// Jobs runs jobs, and Doctor says what is wrong.
	Jobs   *job.Driver
	Doctor doctor.Doctor

	config     config.Config
	configFile string
	program    string
	env        gitlab.Env
	events     func(Event)

	images   *image.Store
	machines machine.Store
	caches   cache.Store
	oci      *oci.Store
}

// Options say how a host is made.
type Options struct {
	// ConfigFile is the configuration file, "" for the usual one.
	ConfigFile string
	// Program is the path by which gitlab-runner and systemd call the program, "" for the
	// one that runs.
	Program string
	// Events is told what goes on, by several goroutines at a time; nil if nobody looks on.
	Events func(Event)
	// Verbose asks for events with details, and with what programs of builds print.
	Verbose bool
	// Colours has programs of builds colour what they print: Events shows it at a terminal.
	Colours bool
	// AfterPrepare is for stages that come after prepare: whatever the configuration has
	// become, the jobs that run shall end well, and their machines go. What they need is in
	// the machine's record; a configuration that cannot be read is not an error.
	AfterPrepare bool
}

// Streams are those of a script or a shell.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}
