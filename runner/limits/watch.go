package limits

import (
	"os"
	"path/filepath"
	"strings"
)

// Watch tells what a machine came up against since it began.
type Watch struct {
	cgroup  string
	before  shortages
	refused uint64
	kernel  kernelLog
}

// Begin watches the machine whose service has this control group.
func Begin(cgroup string) *Watch {
	w := &Watch{cgroup: cgroup, before: shortagesOf(cgroup)}
	w.refused, _ = refusedTasks(cgroup)
	w.kernel = followKernelLog()
	return w
}

// Close ends it.
func (w *Watch) Close() { w.kernel.close() }

// Shortages says what a machine of an image ran out of since Begin. It is called once.
// Processes that the kernel killed count in any case; processes that it refused count only
// if the script failed.
func (w *Watch) Shortages(image string, failed bool) (*OutOfMemory, *OutOfTasks) {
	log := w.kernel.lines()
	memory := w.outOfMemory(image, log)
	if !failed {
		return memory, nil
	}
	return memory, w.outOfTasks(image, log)
}

// shortages counts how often a machine was short of memory.
type shortages struct {
	// kills are processes in it that the kernel has killed for memory, own and together
	// how often the machine, and all machines together, had none left within their limit.
	kills, own, together uint64
}

func shortagesOf(cgroup string) shortages {
	return shortages{
		kills:    countIn(cgroup, "memory.events", "oom_kill "),
		own:      countIn(cgroup, "memory.events.local", "oom "),
		together: countIn(filepath.Dir(cgroup), "memory.events.local", "oom "),
	}
}

// outOfMemory says whether the kernel has killed processes of the machine for memory, and
// what is known of the last one, in lines of the kernel's log.
func (w *Watch) outOfMemory(image string, log []string) *OutOfMemory {
	now := shortagesOf(w.cgroup)
	if now.kills <= w.before.kills {
		return nil
	}
	o := OutOfMemory{Image: image}
	// The file is there since Linux 5.19.
	o.Peak, _ = readNumber(w.cgroup, "memory.peak")
	o.Limit, _ = readNumber(w.cgroup, "memory.max")
	o.Process, o.Used = killedIn(log, w.cgroup)
	o.Together = now.own == w.before.own && now.together > w.before.together
	return &o
}

// refusedTasks is how often a control group was at its own limit of tasks, if the
// kernel counts that, which Linux does since 6.11.
func refusedTasks(cgroup string) (often uint64, counted bool) {
	text, err := os.ReadFile(filepath.Join(root, cgroup, "pids.events.local"))
	if err != nil || cgroup == "" {
		return 0, false
	}
	_, count, _ := strings.Cut(string(text), "max ")
	return parseNumber([]byte(count)), true
}

// outOfTasks says whether the machine hit its limit of tasks. An older kernel only says so in its log, once for each group below the machine's, and
// not whether the limit was that group's own.
func (w *Watch) outOfTasks(image string, log []string) *OutOfTasks {
	often, counted := refusedTasks(w.cgroup)
	if counted && often <= w.refused || !counted && !tasksRefusedIn(log, w.cgroup) {
		return nil
	}
	limit, err := readNumber(w.cgroup, "pids.max")
	if err != nil {
		return nil
	}
	return &OutOfTasks{image, limit}
}
