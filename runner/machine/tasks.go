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
	Limit uint64
}

// String says it to a person who looks at a job's log.
func (o OutOfTasks) String() string {
	return fmt.Sprintf("out of processes: the limit of image %s is %d, threads included (tasks_max)", o.Image, o.Limit)
}

// refusedTasks is how often a control group was at its own limit of tasks, if the
// kernel counts that, which Linux does since 6.11.
func refusedTasks(cgroup string) (often uint64, counted bool) {
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, "pids.events.local"))
	if err != nil || cgroup == "" {
		return 0, false
	}
	_, count, _ := strings.Cut(string(text), "max ")
	return parseNumber([]byte(count)), true
}

// outOfTasks looks whether a machine was at its limit since it had been so often. An
// older kernel only says so in its log, once for each group below the machine's, and
// not whether the limit was that group's own.
func outOfTasks(record Record, before uint64, log []string) *OutOfTasks {
	often, counted := refusedTasks(record.Cgroup)
	if counted && often <= before || !counted && !tasksRefusedIn(log, record.Cgroup) {
		return nil
	}
	limit, err := readNumber(record.Cgroup, "pids.max")
	if err != nil {
		return nil
	}
	return &OutOfTasks{record.Image, limit}
}
