package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"nspawn-runner/runner/printable"
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
	// Together says that it was not this machine that reached its limit but all
	// machines of the host, together.
	Together bool
}

// String says it to a person who looks at a job's log.
func (o OutOfMemory) String() string {
	text := "out of memory"
	if o.Together {
		text += fmt.Sprintf(": all jobs on this host together reached their limit (machines_memory_max); this one used %s", mebibytes(o.Peak))
	} else if o.Limit > 0 {
		text += fmt.Sprintf(": the job used %s, the limit of image %s is %s (memory_max)", mebibytes(o.Peak), o.Image, mebibytes(o.Limit))
	} else {
		text += ": the job reached the limit of image " + o.Image + " (memory_max)"
	}
	if o.Process != "" {
		text += fmt.Sprintf("; killed was %s, with %s", printable.Line(o.Process), mebibytes(o.Used))
	}
	return text
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

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

// outOfMemory says whether the kernel has killed processes of a machine for memory since
// then, and what is known of the last one, in lines of the kernel's log.
func outOfMemory(record Record, before shortages, log []string) *OutOfMemory {
	now := shortagesOf(record.Cgroup)
	if now.kills <= before.kills {
		return nil
	}
	o := OutOfMemory{Image: record.Image}
	// The file is there since Linux 5.19.
	o.Peak, _ = readNumber(record.Cgroup, "memory.peak")
	o.Limit, _ = readNumber(record.Cgroup, "memory.max")
	o.Process, o.Used = killedIn(log, record.Cgroup)
	o.Together = now.own == before.own && now.together > before.together
	return &o
}

// readNumber reads a file of a control group that holds one number.
func readNumber(cgroup, file string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
}

// countIn reads a count in a file of a control group, 0 where there is none.
func countIn(cgroup, file, name string) uint64 {
	if cgroup == "" {
		return 0
	}
	data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, file))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if count, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return parseNumber(count)
		}
	}
	return 0
}
