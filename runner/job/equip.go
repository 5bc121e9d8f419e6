package job

import (
	"fmt"
	"os"
	"slices"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// design plans a machine of a generation. It returns an error if this host lacks what the plan needs.
func (d *Driver) design(name string, generation image.Generation, settings config.Config) (machine.Spec, error) {
	failed := func(err error) (machine.Spec, error) { return machine.Spec{}, fmt.Errorf("image %s: %w", name, err) }
	if err := image.Check(generation.Path); err != nil {
		return failed(err)
	}
	if err := os.MkdirAll(d.Machines.Dir, 0o700); err != nil {
		return machine.Spec{}, err
	}
	backend, err := storage.Choose(settings.Backend, d.Machines.Dir, generation.Path)
	if err != nil {
		return machine.Spec{}, err
	}
	facts, err := d.facts(backend)
	if err != nil {
		return machine.Spec{}, err
	}
	spec := plan(name, generation, settings, facts)
	if err := d.canLimit(spec.Limits.DiskMax, backend); err != nil {
		return failed(err)
	}
	if err := d.equip(&spec, settings); err != nil {
		return failed(err)
	}
	return spec, nil
}

// CheckMachines returns an error if no machine could be started from a generation.
func (d *Driver) CheckMachines(name string, generation image.Generation, settings config.Config) error {
	_, err := d.design(name, generation, settings)
	return err
}

// facts collects the facts of this host on which plans depend.
func (d *Driver) facts(backend storage.Backend) (facts, error) {
	memory, err := host.Memory()
	if err != nil {
		return facts{}, err
	}
	tasks, err := host.MostTasks()
	if err != nil {
		return facts{}, err
	}
	return facts{memory: memory, tasks: tasks, disk: host.DiskSize(host.Lowest(d.Machines.Dir)), backend: backend}, nil
}

// canLimit returns an error if this host cannot enforce a limit of what a machine writes, in bytes.
func (d *Driver) canLimit(limit uint64, backend storage.Backend) error {
	if limit == 0 {
		return nil
	}
	if err := backend.CanLimit(host.Lowest(d.Machines.Dir)); err != nil {
		return fmt.Errorf("disk_max on backend %s: %w", backend.Name(), err)
	}
	return nil
}

// newBackend returns the backend for machines of a generation that does not exist yet. On btrfs, each
// generation will be a subvolume.
func (d *Driver) newBackend(wanted string) (storage.Backend, error) {
	dir := host.Lowest(d.Machines.Dir)
	on, err := storage.IsBtrfs(dir)
	if err != nil {
		return nil, err
	}
	if on && (wanted == "auto" || wanted == "btrfs") {
		return storage.Named("btrfs")
	}
	return storage.Choose(wanted, dir, dir)
}

// CheckDiskLimit returns the backend for machines of a generation that does not exist yet, and an error
// if it could not enforce disk_max.
func (d *Driver) CheckDiskLimit(settings config.Config) (storage.Backend, error) {
	backend, err := d.newBackend(settings.Backend)
	if err != nil {
		return nil, err
	}
	facts, err := d.facts(backend)
	if err != nil {
		return nil, err
	}
	return backend, d.canLimit(planDisk(settings, facts), backend)
}

// BuildSettings is Settings for an image that is about to be built. It returns an error if this host
// lacks what the image's machines will need. Otherwise the build would fail minutes later, at its test.
func (d *Driver) BuildSettings(name string) (config.Config, error) {
	if err := gitlab.CheckImageName(name); err != nil {
		return config.Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	settings, err := d.Settings(name)
	if err != nil {
		return config.Config{}, err
	}
	if err := d.equip(&machine.Spec{}, settings); err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	if _, err := d.CheckDiskLimit(settings); err != nil {
		return config.Config{}, fmt.Errorf("image %s: %w", name, err)
	}
	return settings, nil
}

// equip adds to a plan what the settings give machines of this host: network, devices and binds. It
// returns an error if one of them does not exist.
func (d *Driver) equip(spec *machine.Spec, settings config.Config) error {
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
		others, err := d.openToJobs()
		if err != nil {
			return err
		}
		jobs = append(writable(settings.Binds), others...)
	}
	for _, bind := range settings.Binds {
		if bind.To == gitlab.CacheDir {
			return fmt.Errorf("nspawn_runner_binds: %s is the directory of the jobs' own caches", bind.To)
		}
		shown, err := machine.Bind(bind).Resolved(jobs)
		if err != nil {
			return fmt.Errorf("nspawn_runner_binds: %w", err)
		}
		spec.Binds = append(spec.Binds, shown)
	}
	return nil
}

// minds says whether Bind.Resolved of a bind depends on what jobs can write to.
func minds(bind config.Bind) bool { return bind.Writable || host.Resolved(bind.From) != bind.From }

// writable lists the paths of the host that binds let jobs write to, with and without their links
// resolved.
func writable(binds []config.Bind) []string {
	var all []string
	for _, bind := range binds {
		if bind.Writable {
			all = append(all, bind.From, host.Resolved(bind.From))
		}
	}
	return all
}

// openToJobs lists the paths of the host that jobs of any image can write to, and those that running
// jobs can write to.
func (d *Driver) openToJobs() ([]string, error) {
	images, err := d.Images.List()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, i := range images {
		if settings, err := d.Settings(i.Name); err == nil { // else no job has it
			all = append(all, writable(settings.Binds)...)
		}
	}
	records, err := d.Machines.Records()
	for _, record := range records {
		for _, bind := range record.Binds {
			if bind.Writable {
				all = append(all, bind.From)
			}
		}
	}
	return all, err
}
