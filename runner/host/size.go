package host

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory is the host's memory in bytes.
func Memory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return uint64(info.Totalram) * uint64(info.Unit), nil
}

// MostTasks is how many processes and threads the host can have.
func MostTasks() (uint64, error) {
	most := uint64(math.MaxUint64)
	for _, name := range []string{"threads-max", "pid_max"} {
		text, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err != nil {
			return 0, err
		}
		limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("kernel.%s: %w", name, err)
		}
		most = min(most, limit)
	}
	return most, nil
}

// DiskSize is the size in bytes of the file system of a directory, or 0 as long
// as there is none.
func DiskSize(dir string) uint64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0
	}
	return fs.Blocks * uint64(fs.Bsize)
}
