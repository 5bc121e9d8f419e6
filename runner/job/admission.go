package job

import (
	"fmt"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/size"
	"nspawn-runner/runner/storage"
)

// admit refuses a job if too little disk or memory is free. On a full disk, the other jobs fail too;
// without memory, the host hangs.
func (d *Driver) admit() error {
	if err := d.AdmitDisk(d.Config.StateDir); err != nil {
		return err
	}
	return d.AdmitMemory()
}

// AdmitDisk returns an error if the file system of a directory has less free than min_free_disk.
func (d *Driver) AdmitDisk(dir string) error {
	free, err := storage.Free(dir)
	if err != nil {
		return err
	}
	if want := d.Config.MinFreeDisk.Bytes(host.DiskSize(dir)); uint64(free) < want {
		return failure.Because(failure.NoDisk, fmt.Errorf("only %s are free in %s; jobs need at least %s (min_free_disk); 'nspawn-runner gc' and 'nspawn-runner chroot-prune' make room",
			size.MiB(free), dir, size.MiB(want)))
	}
	return nil
}

// admitImage plans a machine of an image, or refuses it if the job may not have the image.
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

// admitLayers refuses a job if its machines would reserve so much of the disk that less than
// min_free_disk stays free. Only some backends reserve disk_max when a machine starts.
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
		return failure.Because(failure.NoDisk, fmt.Errorf("only %s are free in %s; the machines of the job need %s (disk_max), and %s must stay free (min_free_disk)",
			size.MiB(free), dir, size.MiB(need), size.MiB(stays)))
	}
	return nil
}

// AdmitMemory returns an error if less than min_free_memory is available without swapping.
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
		return failure.Because(failure.NoMemory, fmt.Errorf("only %s of memory are available; jobs need at least %s (min_free_memory); run fewer jobs at a time (concurrent in gitlab-runner's config.toml)",
			size.MiB(available), size.MiB(want)))
	}
	return nil
}
