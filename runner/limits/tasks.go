package limits

import (
	"fmt"
)

// OutOfTasks says that the kernel has refused a machine a process or a thread,
// because it had as many as it may.
type OutOfTasks struct {
	Image string // whose limit it was
	Limit uint64
}

// String says it to a person who looks at a job's log.
func (o OutOfTasks) String() string {
	return fmt.Sprintf("out of processes: the limit of image %s is %d, threads included (tasks_max)", o.Image, o.Limit)
}
