package machine

import (
	"context"
	"fmt"
	"path/filepath"

	"nspawn-runner/runner/storage"
	"nspawn-runner/runner/systemd"
)

// DiskFull says that a machine has written as much as it may.
type DiskFull struct {
	Image       string // whose limit it was
	Used, Limit uint64 // in bytes
}

// String says it to a person who looks at a job's log.
func (d DiskFull) String() string {
	return fmt.Sprintf("disk full: the job wrote %s, the limit of image %s is %s (disk_max)", mebibytes(d.Used), d.Image, mebibytes(d.Limit))
}

// nearlyFull is from which share of its limit on, in percent, a machine's disk counts
// as full: who is refused the last blocks may have removed what it wrote last.
const nearlyFull = 95

// diskFull looks whether a machine has used up its limit. What cannot be found out
// is nil: the job is none the worse for it.
//
// It looks from the mount namespace of systemd-nspawn, in which nobody but this
// program has mounted anything; the machine's own is the job's.
func diskFull(ctx context.Context, dir string, record Record) *DiskFull {
	backend, err := storage.Named(record.Backend)
	if err != nil || record.DiskMax == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reasonTimeout)
	defer cancel()
	host, err := systemd.Host(ctx)
	if err != nil {
		return nil
	}
	defer host.Close()
	var nspawn uint32
	if err := host.Property(ctx, unitName(record.ID), "Service", "MainPID", &nspawn); err != nil || nspawn == 0 {
		return nil
	}
	used, limit, err := backend.Used(filepath.Join(fmt.Sprintf("/proc/%d/root", nspawn), dir))
	if err != nil || used < limit/100*nearlyFull {
		return nil
	}
	// A file system is a little larger than what fits into it.
	return &DiskFull{record.Image, min(used, record.DiskMax), record.DiskMax}
}
