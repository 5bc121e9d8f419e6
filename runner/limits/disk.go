package limits

import "fmt"

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

// Disk says whether a machine has used up what it may write, of which these are shares in
// percent, or the number of files.
func Disk(image string, limit, bytes, files uint64) *DiskFull {
	if max(bytes, files) < nearlyFull {
		return nil
	}
	return &DiskFull{image, limit, files > bytes}
}
