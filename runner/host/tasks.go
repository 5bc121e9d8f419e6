package host

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

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
