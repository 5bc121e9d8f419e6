package limits

import (
	"os"
	"path/filepath"
	"strings"
)

// Watch observes which limits of memory and tasks a machine reaches from Begin on.
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

// Close stops reading the kernel's log.
func (w *Watch) Close() { w.kernel.close() }

// Shortages returns what the machine ran out of since Begin, nil for what it did not run out of.
// The image is for the message. Shortages may be called once only. A process that the kernel
// killed counts in any case; a process that it refused to create counts only if the script
// failed.
func (w *Watch) Shortages(image string, failed bool) (*OutOfMemory, *OutOfTasks) {
	log := w.kernel.lines()
	memory := w.outOfMemory(image, log)
	if !failed {
		return memory, nil
	}
	return memory, w.outOfTasks(image, log)
}

// Killed says whether the kernel has killed processes of a machine for memory, other than the
// first ones that a caller knows of, and how many it has killed by now. The image is for the
// message.
func Killed(cgroup, image string, known uint64) (*OutOfMemory, uint64) {
	w := Watch{cgroup: cgroup, before: shortages{kills: known}}
	return w.outOfMemory(image, nil), max(known, shortagesOf(cgroup).kills)
}

// shortages counts how often a machine was short of memory.
type shortages struct {
	// kills is how many of its processes the kernel has killed to free memory. own is how often
	// the machine was out of memory at its own limit, together how often all machines were at
	// their common limit.
	kills, own, together uint64
}

func shortagesOf(cgroup string) shortages {
	return shortages{
		kills:    countIn(cgroup, "memory.events", "oom_kill "),
		own:      countIn(cgroup, "memory.events.local", "oom "),
		together: countIn(filepath.Dir(cgroup), "memory.events.local", "oom "),
	}
}

// outOfMemory returns nil if the kernel has killed no process of the machine for memory since
// Begin. Otherwise it describes the last one, as far as these lines of the kernel's log tell.
func (w *Watch) outOfMemory(image string, log []string) *OutOfMemory {
	now := shortagesOf(w.cgroup)
	if now.kills <= w.before.kills {
		return nil
	}
	o := OutOfMemory{Image: image}
	// memory.peak exists since Linux 5.19.
	o.Peak, _ = readNumber(w.cgroup, "memory.peak")
	o.Limit, _ = readNumber(w.cgroup, "memory.max")
	o.Process, o.Used = killedIn(log, w.cgroup)
	o.Together = now.own == w.before.own && now.together > w.before.together
	return &o
}

// refusedTasks returns how often a control group has reached its own limit of tasks. counted is
// false if the kernel does not count that, which Linux does since 6.11.
func refusedTasks(cgroup string) (often uint64, counted bool) {
	text, err := os.ReadFile(filepath.Join(root, cgroup, "pids.events.local"))
	if err != nil || cgroup == "" {
		return 0, false
	}
	_, count, _ := strings.Cut(string(text), "max ")
	return parseNumber([]byte(count)), true
}

// outOfTasks returns nil unless the machine reached its limit of tasks since Begin. A kernel older
// than Linux 6.11 only says so in its log, once for each group below the machine's, and does not
// say whether the limit was that group's own.
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

// Kills is how many processes of a control group the kernel has killed to free memory.
func Kills(cgroup string) uint64 { return shortagesOf(cgroup).kills }
