package runner

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/doctor"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/oci"
	"nspawn-runner/runner/statedir"
)

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
	self := o.Program
	if o.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		o.Program, self = program, host.Self
	}
	h := assemble(settings, o, self)
	h.Jobs.Unread = unread
	return h, nil
}

// assemble puts a host together. self is the path by which this process executes the program as
// its child.
func assemble(settings config.Config, o Options, self string) *Host {
	settings.StateDir = host.Resolved(settings.StateDir) // names are compared
	h := &Host{config: settings, configFile: o.ConfigFile, program: o.Program, env: os.Getenv, events: o.Events}
	disk := host.DiskSize(host.Lowest(settings.StateDir))
	h.machines = machine.Store{
		Dir:     filepath.Join(settings.StateDir, statedir.Machines),
		Trash:   filepath.Join(settings.StateDir, statedir.Trash),
		Program: o.Program,
	}
	h.machines.Collected = func(main machine.Collected) { job.Abandoned(h.machines, main) }
	h.images = &image.Store{
		StateDir:     settings.StateDir,
		PlaybookDirs: []string{settings.PlaybookDir, settings.StateDir},
		Environment:  settings.Environment,
		Progress: func(e image.Event) {
			h.tell(Event{Image: e.Image, Step: e.Step, Note: e.Note, Packages: e.Packages})
		},
		InUse:        h.generationInUse,
		BaseMaxAge:   settings.BaseMaxAge,
		DownloadsMax: settings.DownloadCacheMax.Bytes(disk),
	}
	if o.Verbose {
		h.machines.Log, h.images.Verbose, h.images.Colours = h.detail, output{h}, o.Colours
	}
	h.caches = job.CachesOf(settings, h.machines)
	h.oci = &oci.Store{
		Dir:      filepath.Join(settings.StateDir, statedir.OCI),
		Trash:    filepath.Join(settings.StateDir, statedir.Trash),
		Program:  self,
		Rules:    h.rules(),
		CacheMax: settings.OCICacheMax.Bytes(disk),
		ImageMax: settings.OCIImageMax.Bytes(disk),
		MinFree:  settings.MinFreeDisk.Bytes(disk),
		Environment: func(name string) string {
			return cmp.Or(settings.Environment[name], os.Getenv(name))
		},
		Progress: func(e oci.Event) { h.note("%s", e.Note) },
		InUse:    h.generationInUse,
	}
	h.Jobs = &job.Driver{
		Config: settings, ConfigFile: o.ConfigFile, Env: h.env, Program: o.Program, Note: h.note,
		Images: h.images, Machines: h.machines, Caches: h.caches, OCI: h.oci,
	}
	h.images.Test = h.Jobs.TryGeneration
	if host.RunsSystemd() {
		h.images.Boot, h.images.Halt = h.Jobs.BootGeneration, h.Jobs.HaltGeneration
	}
	h.Doctor = doctor.Doctor{Jobs: h.Jobs, Leftovers: h.leftovers}
	return h
}

// rules are what the configuration says of images of registries.
func (h *Host) rules() oci.Rules {
	return oci.Rules{
		Images: h.config.OCIImages, ConfigPath: cmp.Or(h.configFile, config.DefaultFile),
		Registry: h.config.OCIRegistry, Mirror: h.config.OCIMirror, Insecure: h.config.OCIInsecure,
	}
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
