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
	Image string // whose limit it was
	Limit uint64 // in bytes
	// Files says that it was their number, of which as many go into a machine as
	// there are 8 KiB in the limit.
	Files bool
}

// String says it to a person who looks at a job's log.
func (d DiskFull) String() string {
	what := "as much"
	if d.Files {
		what = "as many files"
	}
	return fmt.Sprintf("disk full: the job wrote %s as image %s allows, whose limit is %s (disk_max)", what, d.Image, mebibytes(d.Limit))
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
	// Of a link there, the kernel would look for what it names in our own namespace.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil
	}
	bytes, files, err := backend.Used(filepath.Join(fmt.Sprintf("/proc/%d/root", nspawn), dir))
	if err != nil || max(bytes, files) < nearlyFull {
		return nil
	}
	return &DiskFull{record.Image, record.DiskMax, files > bytes}
}
