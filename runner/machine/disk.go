package machine

import (
	"context"
	"fmt"
	"path/filepath"

	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/storage"
	"nspawn-runner/runner/systemd"
)

// diskFull returns whether a machine has used up its limit, or nil if that is not known.
func diskFull(ctx context.Context, dir string, record Record) *limits.DiskFull {
	bytes, files, known := diskUse(ctx, dir, record)
	if !known {
		return nil
	}
	return limits.Disk(record.Image, record.DiskMax, bytes, files)
}

// diskUse returns how much of its limit a machine has used, in percent of bytes and of files.
//
// It looks in the mount namespace of systemd-nspawn, in which only this program has mounted anything. The
// machine's own mount namespace belongs to the job.
func diskUse(ctx context.Context, dir string, record Record) (bytes, files uint64, known bool) {
	backend, err := storage.Named(record.Backend)
	if err != nil || record.DiskMax == 0 {
		return 0, 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, reasonTimeout)
	defer cancel()
	host, err := systemd.Host(ctx)
	if err != nil {
		return 0, 0, false
	}
	defer host.Close()
	var nspawn uint32
	if err := host.Property(ctx, unitName(record.ID), "Service", "MainPID", &nspawn); err != nil || nspawn == 0 {
		return 0, 0, false
	}
	// The kernel would resolve a link on the path in the namespace of this process.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return 0, 0, false
	}
	bytes, files, err = backend.Used(filepath.Join(fmt.Sprintf("/proc/%d/root", nspawn), dir))
	return bytes, files, err == nil
}
