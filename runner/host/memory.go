package host

import (
	"bufio"
	"errors"
	"fmt"
	"os"
)

// AvailableMemory is how many bytes can still be put into memory without anything being
// swapped out: MemAvailable of proc_meminfo(5).
func AvailableMemory() (uint64, error) {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var kilobytes uint64
		if n, _ := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10, nil
		}
	}
	return 0, errors.Join(errors.New("/proc/meminfo: no MemAvailable"), lines.Err())
}
