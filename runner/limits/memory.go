package limits

import (
	"fmt"

	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/size"
)

// OutOfMemory says what the kernel killed in a machine because the machine
// reached its limit, as far as the kernel tells.
type OutOfMemory struct {
	Image string // whose limit it was
	// Peak is the most that all of the machine's processes used at a time,
	// Limit what they may use: in bytes, 0 where it is not known.
	Peak, Limit uint64
	// Process is the name of the last process that was killed, and Used its own
	// memory in bytes; empty where the kernel's log cannot be read.
	Process string
	Used    uint64
	// Service says that the machine is the service of a job.
	Service bool
	// Together says that it was not this machine that reached its limit but all
	// machines of the host, together.
	Together bool
}

// String says it to a person who looks at a job's log.
func (o OutOfMemory) String() string {
	text, limited := "out of memory", o.Limit > 0
	switch {
	case o.Together:
		text += fmt.Sprintf(": all jobs on this host together reached their limit (machines_memory_max); this one used %s", size.MiB(o.Peak))
	case o.Service && limited:
		text += fmt.Sprintf(": the service used %s, the limit of image %s is %s (service_memory_max)", size.MiB(o.Peak), o.Image, size.MiB(o.Limit))
	case o.Service:
		text += ": the service reached the limit of image " + o.Image + " (service_memory_max)"
	case limited:
		text += fmt.Sprintf(": the job used %s, the limit of image %s is %s (memory_max)", size.MiB(o.Peak), o.Image, size.MiB(o.Limit))
	default:
		text += ": the job reached the limit of image " + o.Image + " (memory_max)"
	}
	if o.Process != "" {
		text += fmt.Sprintf("; killed was %s, with %s", printable.Line(o.Process), size.MiB(o.Used))
	}
	return text
}
