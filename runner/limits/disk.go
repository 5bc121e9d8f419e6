package limits

import (
	"fmt"

	"nspawn-runner/runner/size"
)

// DiskFull says that a machine has written as much as it may.
type DiskFull struct {
	Image string // whose limit it is
	Limit uint64 // in bytes
	// Files is whether the number of files reached the limit, not their size. A machine
	// may have one file for each 8 KiB of Limit.
	Files bool
}

// String is the line in the job's log.
func (d DiskFull) String() string {
	if d.Files {
		return fmt.Sprintf("disk full: the job wrote as many files as image %s allows: one for each 8 KiB of %s (disk_max)", d.Image, size.MiB(d.Limit))
	}
	return fmt.Sprintf("disk full: the job wrote as much as image %s allows: %s (disk_max)", d.Image, size.MiB(d.Limit))
}

// nearlyFull is the share of its limit, in percent, from which a machine's disk counts as
// full. It is below 100, because a program whose last write failed may have removed the
// file before the disk is measured.
const nearlyFull = 95

// Disk returns nil unless a machine has reached its limit, in bytes. The arguments bytes
// and files are how much of its space and of its number of files is used, in percent.
func Disk(image string, limit, bytes, files uint64) *DiskFull {
	if max(bytes, files) < nearlyFull {
		return nil
	}
	return &DiskFull{image, limit, files > bytes}
}
