package runner

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// imageConfig is the configuration with the image's own settings. An image that is
// being made for the first time, without a playbook, has none.
func (h *Host) imageConfig(name string) (config.Config, error) {
	known, err := h.images().Get(name)
	var unknown *image.UnknownError
	if errors.As(err, &unknown) {
		return h.Config, nil
	}
	if err != nil {
		return config.Config{}, err
	}
	book, err := known.ReadPlaybook()
	if err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	return h.Config.ForImage(book.Path, book.Settings)
}

// spec says what machines of a generation are like, whoever they are for.
func (h *Host) spec(name string, generation image.Generation, settings config.Config) (machine.Spec, error) {
	if err := image.Check(generation.Path); err != nil {
		return machine.Spec{}, fmt.Errorf("image %s: %w", name, err)
	}
	machines := h.machines().Dir
	if err := os.MkdirAll(machines, 0o700); err != nil {
		return machine.Spec{}, err
	}
	backend, err := storage.Choose(settings.Backend, machines, generation.Path)
	if err != nil {
		return machine.Spec{}, err
	}
	total, err := memory()
	if err != nil {
		return machine.Spec{}, err
	}
	tasks, err := mostTasks()
	if err != nil {
		return machine.Spec{}, err
	}
	diskMax, err := h.diskLimit(settings, backend)
	if err != nil {
		return machine.Spec{}, fmt.Errorf("image %s: %w", name, err)
	}
	spec := machine.Spec{
		Image:       name,
		Generation:  generation.Name,
		Chroot:      generation.Path,
		Backend:     backend,
		Privileged:  settings.Privileged,
		BootTimeout: settings.BootTimeout,
		Limits: machine.Limits{
			MemoryMax:     settings.MemoryMax.Bytes(total),
			MemorySwapMax: settings.MemorySwapMax.Bytes(total),
			CPUQuota:      settings.CPUs,
			CPUWeight:     settings.CPUWeight,
			IOWeight:      settings.IOWeight,
			TasksMax:      settings.TasksMax.Bytes(tasks),
			OpenFiles:     settings.OpenFiles,
			DiskMax:       diskMax,
		},
		Together: machine.Together{
			MemoryMax: settings.MachinesMemoryMax.Bytes(total),
			TasksMax:  settings.MachinesTasksMax.Bytes(tasks),
		},
		Shell: settings.Shell,
		Quiet: !settings.Usage,

		CloudMetadata: settings.CloudMetadata,
		NoFUSE:        !settings.FUSE,
		Environment:   settings.JobEnvironment,
		NoNesting:     !settings.Nesting,
	}
	if err := h.wantOfHost(&spec, settings); err != nil {
		return machine.Spec{}, fmt.Errorf("image %s: %w", name, err)
	}
	return spec, nil
}

// newBackend is the backend of machines of what is still to be built: on btrfs
// each generation is a subvolume.
func (h *Host) newBackend(wanted string) (storage.Backend, error) {
	dir := lowest(h.machines().Dir)
	on, err := storage.IsBtrfs(dir)
	if err != nil {
		return nil, err
	}
	if on && (wanted == "auto" || wanted == "btrfs") {
		return storage.Named("btrfs")
	}
	return storage.Choose(wanted, dir, dir)
}

// checkDiskLimit looks whether a limit could be kept of the machines of what is still
// to be built, and what their backend would be.
func (h *Host) checkDiskLimit(settings config.Config) (storage.Backend, error) {
	backend, err := h.newBackend(settings.Backend)
	if err != nil {
		return nil, err
	}
	_, err = h.diskLimit(settings, backend)
	return backend, err
}

// diskLimit is how many bytes a machine may write to its root, 0 for no limit. A
// limit that the backend cannot keep on this host is an error.
func (h *Host) diskLimit(settings config.Config, backend storage.Backend) (uint64, error) {
	dir := lowest(h.machines().Dir)
	whole := diskSize(dir)
	if backend.Traits().InMemory {
		var err error
		if whole, err = memory(); err != nil {
			return 0, err
		}
	}
	limit := settings.DiskMax.Bytes(whole)
	if limit == math.MaxUint64 {
		return 0, nil
	}
	if err := backend.CanLimit(dir); err != nil {
		return 0, fmt.Errorf("disk_max on backend %s: %w", backend.Name(), err)
	}
	return limit, nil
}

// wantOfHost adds to a spec what the settings give machines of this host, all of
// which must be there.
func (h *Host) wantOfHost(spec *machine.Spec, settings config.Config) error {
	attached, err := network.Named(settings.Network)
	if err == nil {
		err = attached.Check()
	}
	if err != nil {
		return err
	}
	spec.Network = attached
	for _, path := range settings.Devices {
		device, err := machine.FindDevice(path)
		if err != nil {
			return fmt.Errorf("nspawn_runner_devices: %w", err)
		}
		spec.Devices = append(spec.Devices, device)
	}
	var jobs []string
	if slices.ContainsFunc(settings.Binds, minds) {
		others, err := h.openToJobs()
		if err != nil {
			return err
		}
		jobs = append(writable(settings.Binds), others...)
	}
	for _, bind := range settings.Binds {
		if bind.To == gitlab.CacheDir {
			return fmt.Errorf("nspawn_runner_binds: %s: jobs' own caches lie there", bind.To)
		}
		shown, err := machine.Bind(bind).Resolved(jobs)
		if err != nil {
			return fmt.Errorf("nspawn_runner_binds: %w", err)
		}
		spec.Binds = append(spec.Binds, shown)
	}
	return nil
}

// minds says whether it matters for a bind what jobs can write to.
func minds(bind config.Bind) bool { return bind.Writable || resolved(bind.From) != bind.From }

// writable lists what of the host some binds let jobs write to, without links.
func writable(binds []config.Bind) []string {
	var all []string
	for _, bind := range binds {
		if bind.Writable {
			all = append(all, bind.From, resolved(bind.From))
		}
	}
	return all
}

// openToJobs lists what of the host jobs of any image can write to, and what those can
// that run now.
func (h *Host) openToJobs() ([]string, error) {
	images, err := h.images().List()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, i := range images {
		if settings, err := h.imageConfig(i.Name); err == nil { // else no job has it
			all = append(all, writable(settings.Binds)...)
		}
	}
	records, err := h.machines().Records()
	for _, record := range records {
		for _, bind := range record.Binds {
			if bind.Writable {
				all = append(all, bind.From)
			}
		}
	}
	return all, err
}
