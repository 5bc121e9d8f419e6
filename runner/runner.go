// Package runner is the front door of nspawn-runner: what the command line and
// the Mage targets call.
//
//	runner.go       New: puts the packages below together
//	event.go        what whoever looks on is told meanwhile
//	images.go       creating and entering images
//	maintenance.go  maintaining them
//	generations.go  rolling back, pruning and removing them
//	show.go         what is known of them
//	machines.go     listing and entering machines
//	gc.go           removing what nobody owns
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
	"fmt"
	"io"
	"os"
	"path/filepath"

	"nspawn-runner/runner/cache"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/doctor"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/statedir"
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
	// AfterPrepare is for stages that come after prepare: whatever the configuration has
	// become, the jobs that run shall end well, and their machines go. What they need is in
	// the machine's record; a configuration that cannot be read is no error.
	AfterPrepare bool
}

// Streams are those of a script or a shell.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// New returns the host as configured in a file.
func New(o Options) (*Host, error) {
	settings, unread := config.Load(o.ConfigFile)
	if unread != nil && !o.AfterPrepare {
		return nil, unread
	}
	if o.ConfigFile != "" {
		path, err := filepath.Abs(o.ConfigFile)
		if err != nil {
			return nil, err
		}
		o.ConfigFile = path
	}
	if o.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		o.Program = program
	}
	h := assemble(settings, o)
	h.Jobs.Unread = unread
	return h, nil
}

// assemble puts a host together.
func assemble(settings config.Config, o Options) *Host {
	settings.StateDir = host.Resolved(settings.StateDir) // names are compared
	h := &Host{config: settings, configFile: o.ConfigFile, program: o.Program, env: os.Getenv, events: o.Events}
	h.machines = machine.Store{
		Dir:     filepath.Join(settings.StateDir, statedir.Machines),
		Trash:   filepath.Join(settings.StateDir, statedir.Trash),
		Program: o.Program,
	}
	h.images = &image.Store{
		StateDir:     settings.StateDir,
		PlaybookDirs: []string{settings.PlaybookDir, settings.StateDir},
		Environment:  settings.Environment,
		Progress: func(e image.Event) {
			h.tell(Event{Image: e.Image, Step: e.Step, Note: e.Note, Packages: e.Packages})
		},
		InUse:        h.generationInUse,
		BaseMaxAge:   settings.BaseMaxAge,
		DownloadsMax: settings.DownloadCacheMax.Bytes(host.DiskSize(settings.StateDir)),
	}
	if o.Verbose {
		h.machines.Log, h.images.Verbose = h.detail, output{h}
	}
	h.caches = job.CachesOf(settings, h.machines)
	h.Jobs = &job.Driver{
		Config: settings, ConfigFile: o.ConfigFile, Env: h.env, Program: o.Program, Note: h.note,
		Images: h.images, Machines: h.machines, Caches: h.caches,
	}
	h.images.Test = h.Jobs.TryGeneration
	if host.RunsSystemd() {
		h.images.Boot, h.images.Halt = h.Jobs.BootGeneration, h.Jobs.HaltGeneration
	}
	h.Doctor = doctor.Doctor{Jobs: h.Jobs, Leftovers: h.leftovers}
	return h
}

// generationInUse says whether a machine runs on a generation. When that
// cannot be known, it does.
func (h *Host) generationInUse(generation string) bool {
	records, err := h.machines.Records()
	if err != nil {
		return true
	}
	for _, record := range records {
		if record.Generation == generation {
			return true
		}
	}
	return false
}
