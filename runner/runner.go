// Package runner is the front door of nspawn-runner: what the command line and
// the Mage targets call.
//
//	stages.go       config, prepare, run, cleanup: what gitlab-runner calls
//	try.go          the four in one go, for a person
//	images.go       creating and entering images
//	maintenance.go  maintaining them
//	event.go        what whoever looks on is told meanwhile
//	booted.go       booting one while its playbook runs
//	trial.go        testing a generation before it is published
//	names.go        which image a job means
//	spec.go         what an image's machines are like
//	age.go          how old images are, and may be
//	generations.go  rolling back, pruning and removing them
//	show.go         what is known of them
//	machines.go     listing and entering machines
//	gc.go           removing what nobody owns
//	caches.go       keeping the caches of jobs within bounds
//	doctor.go       what is wrong with this host; doctor_*.go: its checks
//	host.go         what a host must have
//	admission.go    when it takes no job
//	caller.go       the gitlab-runner that calls
//	helper.go       its program inside the machine
//	toml.go         the block for config.toml
//	version.go      of what this program was made
//
// The packages below it do the work and know nothing of each other's: image
// makes chroots, machine runs systems on them, storage gives those a writable
// root, systemd speaks D-Bus; gitlab and config only read and write text.
package runner

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
)

// Host is this host, with its images and machines.
type Host struct {
	Config config.Config
	// Env is the environment: os.Getenv.
	Env gitlab.Env
	// Events is told what goes on, by several goroutines at a time; nil if nobody looks on.
	Events func(Event)
	// Verbose asks for events with details, and with what programs of builds print.
	Verbose bool
	// Colours has programs of builds colour what they print: Events shows it at a terminal.
	Colours bool

	// Program is the path by which gitlab-runner and systemd call this program.
	Program string

	configFile string
	// unread is why the configuration, or a part of it, could not be read: NewForStage.
	unread   error
	untested sync.Once // told that new generations are not tested
}

// New returns the host as configured in a file, "" for the usual one.
func New(configFile string) (*Host, error) {
	h, err := NewForStage(configFile)
	if err != nil {
		return nil, err
	}
	if h.unread != nil {
		return nil, h.unread
	}
	return h, nil
}

// NewForStage is New for stages that come after prepare: whatever the configuration has
// become, the jobs that run shall end well, and their machines go. What they need is in
// the machine's record; a configuration that cannot be read is no error.
func NewForStage(configFile string) (*Host, error) {
	settings, unread := config.Load(configFile)
	settings.StateDir = resolved(settings.StateDir) // names are compared
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if configFile != "" {
		if configFile, err = filepath.Abs(configFile); err != nil {
			return nil, err
		}
	}
	return &Host{
		Config:  settings,
		Env:     os.Getenv,
		Program: program, configFile: configFile, unread: unread,
	}, nil
}

// Streams are those of a script or a shell.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

func (h *Host) machines() machine.Store { return h.machinesIn(h.Config.StateDir) }

func (h *Host) machinesIn(stateDir string) machine.Store {
	store := machine.Store{
		Dir:     filepath.Join(stateDir, ".machines"),
		Trash:   filepath.Join(stateDir, ".trash"),
		Program: h.Program,
	}
	if h.Verbose {
		store.Log = h.detail
	}
	return store
}

// machinesOf are the machines of the state directory in which a job's machine was
// started: the configuration may have named another one then. By hand it is the one that
// the configuration names, as long as it does. That nothing names one is an error: there
// may be a machine all the same.
func (h *Host) machinesOf(job gitlab.Job) (machine.Store, error) {
	if dir, found := machine.Find(job.ID); found && (job.Trusted || h.unread != nil) {
		return h.machinesIn(filepath.Dir(filepath.Dir(dir))), nil
	}
	return h.machines(), h.unread
}

func (h *Host) images() *image.Store {
	store := &image.Store{
		StateDir:     h.Config.StateDir,
		PlaybookDirs: []string{h.Config.PlaybookDir, h.Config.StateDir},
		Environment:  h.Config.Environment,
		Progress: func(e image.Event) {
			h.tell(Event{Image: e.Image, Step: e.Step, Note: e.Note, Packages: e.Packages})
		},
		InUse:        h.generationInUse,
		Test:         h.tryGeneration,
		BaseMaxAge:   h.Config.BaseMaxAge,
		DownloadsMax: h.Config.DownloadCacheMax.Bytes(diskSize(h.Config.StateDir)),
	}
	if runsSystemd() {
		store.Boot, store.Halt = h.bootGeneration, h.haltGeneration
	}
	if h.Verbose {
		store.Verbose, store.Colours = output{h}, h.Colours
	}
	return store
}

// generationInUse says whether a machine runs on a generation. When that
// cannot be known, it does.
func (h *Host) generationInUse(generation string) bool {
	records, err := h.machines().Records()
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
