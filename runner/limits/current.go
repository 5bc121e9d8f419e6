package limits

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// Current is what a machine uses at the moment, and its limits; 0 means no limit, or what is not
// counted on this host.
type Current struct {
	// Memory is in bytes, and counts the files that the kernel caches for the machine.
	Memory    uint64 `json:"memory_bytes"`
	MemoryMax uint64 `json:"memory_max_bytes,omitempty"`
	// Tasks are processes and threads.
	Tasks    uint64 `json:"tasks"`
	TasksMax uint64 `json:"tasks_max,omitempty"`
	// CPUsMax is how many processors it may use.
	CPUsMax float64 `json:"cpus_max,omitempty"`
}

// CurrentOf reads what the machine uses whose service has this control group.
func CurrentOf(cgroup string) (c Current) {
	// A file that is not there, or says max, is 0.
	c.Memory, _ = readNumber(cgroup, "memory.current")
	c.MemoryMax, _ = readNumber(cgroup, "memory.max")
	c.Tasks, _ = readNumber(cgroup, "pids.current")
	c.TasksMax, _ = readNumber(cgroup, "pids.max")
	quota, _ := os.ReadFile(filepath.Join(root, cgroup, "cpu.max"))
	c.CPUsMax = processors(quota)
	return c
}

// processors is how many processors a quota is: "max 100000", or microseconds for each
// period of so many.
func processors(quota []byte) float64 {
	words := bytes.Fields(quota)
	if len(words) != 2 {
		return 0
	}
	share, err := strconv.ParseFloat(string(words[0]), 64)
	period, periodErr := strconv.ParseFloat(string(words[1]), 64)
	if err != nil || periodErr != nil || period <= 0 {
		return 0
	}
	return share / period
}
