package runner

import (
	"fmt"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/storage"
)

// admit refuses a job that this host has no room for, while there still is some:
// a full disk takes the other jobs down with it, and no memory the host.
func (h *Host) admit() error {
	if err := h.admitDisk(h.Config.StateDir); err != nil {
		return err
	}
	return h.admitMemory()
}

// admitDisk looks at the file system of a directory.
func (h *Host) admitDisk(dir string) error {
	free, err := storage.Free(dir)
	if err != nil {
		return err
	}
	if want := h.Config.MinFreeDisk.Bytes(diskSize(dir)); uint64(free) < want {
		return fmt.Errorf("this host is short of disk space: %s has %d MB free, and jobs start with %d (min_free_disk); 'nspawn-runner gc' and chroot-prune make room",
			dir, free/1e6, want/1e6)
	}
	return nil
}

// admitLayer refuses a job whose machine would take so much room for itself, when it
// starts, that too little stayed for the others. Only some backends
// reserve it.
func (h *Host) admitLayer(spec machine.Spec) error {
	if !spec.Backend.Traits().Reserved || spec.Limits.DiskMax == 0 {
		return nil
	}
	dir := h.Config.StateDir
	free, err := storage.Free(dir)
	if err != nil {
		return err
	}
	if stays := h.Config.MinFreeDisk.Bytes(diskSize(dir)); uint64(free) < stays || uint64(free)-stays < spec.Limits.DiskMax {
		return fmt.Errorf("this host is short of disk space: %s has %d MB free; a machine of image %s takes %d (disk_max), and %d stay free (min_free_disk)",
			dir, free/1e6, spec.Image, spec.Limits.DiskMax/1e6, stays/1e6)
	}
	return nil
}

// admitMemory looks at what the kernel can give without swapping.
func (h *Host) admitMemory() error {
	total, err := memory()
	if err != nil {
		return err
	}
	want := h.Config.MinFreeMemory.Bytes(total)
	if want == 0 {
		return nil
	}
	available, err := host.AvailableMemory()
	if err != nil {
		return err
	}
	if available < want {
		return fmt.Errorf("this host is short of memory: %d MB are available, and jobs start with %d (min_free_memory); fewer jobs at a time help (concurrent, in gitlab-runner's config.toml)",
			available/1e6, want/1e6)
	}
	return nil
}
