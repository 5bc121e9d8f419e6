package job

import (
	"fmt"

	"nspawn-runner/runner/host"
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
		return fmt.Errorf("only %d MB are free in %s; jobs need at least %d MB (min_free_disk); 'nspawn-runner gc' and 'nspawn-runner chroot-prune' make room",
			free/1e6, dir, want/1e6)
	}
	return nil
}

// admitLayer refuses a job whose machine would take so much room for itself, when it
// starts, that too little stayed for the others. Only some backends
// reserve it.
func (d *Driver) admitLayer(spec machine.Spec) error {
	if !spec.Backend.Traits().Reserved || spec.Limits.DiskMax == 0 {
		return nil
	}
	dir := d.Config.StateDir
	free, err := storage.Free(dir)
	if err != nil {
		return err
	}
	if stays := d.Config.MinFreeDisk.Bytes(host.DiskSize(dir)); uint64(free) < stays || uint64(free)-stays < spec.Limits.DiskMax {
		return fmt.Errorf("only %d MB are free in %s; a machine of image %s needs %d MB (disk_max), and %d MB must stay free (min_free_disk)",
			free/1e6, dir, spec.Image, spec.Limits.DiskMax/1e6, stays/1e6)
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
		return fmt.Errorf("only %d MB of memory are available; jobs need at least %d MB (min_free_memory); run fewer jobs at a time (concurrent in gitlab-runner's config.toml)",
			available/1e6, want/1e6)
	}
	return nil
}
