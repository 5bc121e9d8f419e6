package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// OutOfTasks says that the kernel has refused a machine a process or a thread,
// because it had as many as it may.
type OutOfTasks struct {
	Image string // whose limit it was
	Limit uint64 // 0 where it is not known
}

// String says it to a person who looks at a job's log.
func (o OutOfTasks) String() string {
	return fmt.Sprintf("out of processes: the limit of image %s is %d, threads included (tasks_max)", o.Image, o.Limit)
}

// refusedTasks is how often a control group was at its limit of tasks. Linux counts
// that there since 6.11; before, in the group of whoever was refused.
func refusedTasks(cgroup string) uint64 {
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, "pids.events"))
	if err != nil || cgroup == "" {
		return 0
	}
	_, count, _ := strings.Cut(string(text), "max ")
	return parseNumber([]byte(count))
}

// outOfTasks looks whether a machine was at its limit since it had been so often.
// Before Linux 6.11 only the kernel's log says so, once for each group.
func outOfTasks(record Record, before uint64) *OutOfTasks {
	if record.Cgroup == "" || refusedTasks(record.Cgroup) <= before && !tasksRefusedIn(kernelLog(), record.Cgroup) {
		return nil
	}
	limit, _ := readNumber(record.Cgroup, "pids.max")
	return &OutOfTasks{record.Image, limit}
}
