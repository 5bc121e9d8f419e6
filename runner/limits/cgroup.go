package limits

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// root is where the control groups are.
const root = "/sys/fs/cgroup"

// readNumber reads a file of a control group that holds one number.
func readNumber(cgroup, file string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(root, cgroup, file))
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
	data, err := os.ReadFile(filepath.Join(root, cgroup, file))
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

func parseNumber(text []byte) uint64 {
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	return n
}
