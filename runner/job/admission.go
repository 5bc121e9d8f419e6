package job

import (
	"fmt"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/storage"
)

// admit refuses a job that this host has no room for, while there still is some:
// a full disk takes the other jobs down with it, and no memory the host.
func (d *Driver) admit() error {
	if err := d.AdmitDisk(d.Config.StateDir); err != nil {
		return err
	}
	return d.AdmitMemory()
}

// AdmitDisk looks at the file system of a directory.
func (d *Driver) AdmitDisk(dir string) error {
	free, err := storage.Free(dir)
	if err != nil {
		return err
	}
	if want := d.Config.MinFreeDisk.Bytes(host.DiskSize(dir)); uint64(free) < want {
		return failure.Because(failure.NoDisk, fmt.Errorf("only %d MB are free in %s; jobs need at least %d MB (min_free_disk); 'nspawn-runner gc' and 'nspawn-runner chroot-prune' make room",
			free/1e6, dir, want/1e6))
	}
	return nil
}

// admitImage makes the plan of a machine of an image that a job may have.
func (d *Driver) admitImage(name string, generation image.Generation, settings config.Config, may Permission) (machine.Spec, error) {
	if err := d.permit(name, settings, may); err != nil {
		return machine.Spec{}, failure.Because(failure.Policy, err)
	}
	spec, err := d.design(name, generation, settings)
	if err != nil {
		return machine.Spec{}, err
	}
	d.warnOfAge(name, generation, settings.MaxAge)
	if settings.Privileged {
		d.Note("image %s is privileged: root in this job is root on the host", name)
	}
	return spec, nil
}

// admitLayers refuses a job whose machines would take so much room for themselves, when
// they start, that too little stayed for the others. Only some backends reserve it.
func (d *Driver) admitLayers(specs []machine.Spec) error {
	need := uint64(0)
	for _, spec := range specs {
		if spec.Backend.Traits().Reserved {
			need += spec.Limits.DiskMax
		}
	}
	if need == 0 {
		return nil
	}
	dir := d.Config.StateDir
	free, err := storage.Free(dir)
	if err != nil {
		return err
	}
	if stays := d.Config.MinFreeDisk.Bytes(host.DiskSize(dir)); uint64(free) < stays || uint64(free)-stays < need {
		return failure.Because(failure.NoDisk, fmt.Errorf("only %d MB are free in %s; the machines of the job need %d MB (disk_max), and %d MB must stay free (min_free_disk)",
			free/1e6, dir, need/1e6, stays/1e6))
	}
	return nil
}

// AdmitMemory looks at what the kernel can give without swapping.
func (d *Driver) AdmitMemory() error {
	total, err := host.Memory()
	if err != nil {
		return err
	}
	want := d.Config.MinFreeMemory.Bytes(total)
	if want == 0 {
		return nil
	}
	available, err := host.AvailableMemory()
	if err != nil {
		return err
	}
	if available < want {
		return failure.Because(failure.NoMemory, fmt.Errorf("only %d MB of memory are available; jobs need at least %d MB (min_free_memory); run fewer jobs at a time (concurrent in gitlab-runner's config.toml)",
			available/1e6, want/1e6))
	}
	return nil
}
