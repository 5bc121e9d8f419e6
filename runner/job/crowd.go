package job

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// instancesEach is about how many inotify instances a machine takes to boot, and keeps.
const instancesEach = 8

// inotifyLimit is the file with the kernel's limit of instances for all machines together: inotify(7).
const inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"

// crowd returns a line if too many machines run for the kernel's limit, else "". Nothing fails then, but services of
// machines wait for instances, and a boot takes ten times as long. Only the administrator can change the limit, so
// the line is for the host's journal.
func crowd(machinesDir, limitFile string) string {
	text, err := os.ReadFile(limitFile)
	if err != nil {
		return ""
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit > 1<<16 { // as the doctor advises: no need to count
		return ""
	}
	machines, err := os.ReadDir(machinesDir)
	if err != nil || len(machines)*instancesEach <= limit {
		return ""
	}
	return fmt.Sprintf("machines boot slowly: there are %d, each needs about %d inotify instances, and fs.inotify.max_user_instances is %d; 'nspawn-runner doctor' says what to set",
		len(machines), instancesEach, limit)
}
