package runner

import (
	"fmt"

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
	available, err := storage.AvailableMemory()
	if err != nil {
		return err
	}
	if available < want {
		return fmt.Errorf("this host is short of memory: %d MB are available, and jobs start with %d (min_free_memory); fewer jobs at a time help (concurrent, in gitlab-runner's config.toml)",
			available/1e6, want/1e6)
	}
	return nil
}
