package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/printable"
)

const (
	// killPause is the time between two attempts to kill processes that systemd could not kill.
	killPause = 100 * time.Millisecond
	// emptyLimit is how long such processes may take to end.
	emptyLimit = 5 * time.Second
)

// awaitEmpty kills the processes in a control group, and waits until there are none.
func awaitEmpty(ctx context.Context, group string, patience time.Duration) error {
	dir := filepath.Join("/sys/fs/cgroup", group)
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nearly always: systemd has removed it
	}
	if err != nil {
		return err
	}
	defer events.Close()
	limit := time.Now().Add(patience)
	for {
		populated, err := isPopulated(events)
		if err != nil || !populated {
			return err
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			return survivors(processes(group))
		}
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		// The poll ends when the last process has ended: cgroup-v2.rst.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(killPause.Milliseconds()))
	}
}

// isPopulated reads in cgroup.events whether a control group, or one below it, has a process. A control
// group that was removed has none.
func isPopulated(events *os.File) (bool, error) {
	text := make([]byte, 4096)
	n, err := events.ReadAt(text, 0)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if n == 0 && err != nil {
		return false, fmt.Errorf("read %s: %w", events.Name(), err)
	}
	return bytes.Contains(text[:n], []byte("populated 1")), nil
}

// processes returns the ids of the processes in a control group and below it.
func processes(group string) (pids []int) {
	_ = filepath.WalkDir(filepath.Join("/sys/fs/cgroup", group), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // removed meanwhile
		}
		text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for word := range bytes.FieldsSeq(text) {
			if pid, err := strconv.Atoi(string(word)); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// survivors are processes that cannot be killed.
type survivors []int

func (pids survivors) Error() string {
	var names []string
	for _, pid := range pids[:min(len(pids), 3)] {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		names = append(names, strings.TrimSpace(fmt.Sprintf("%d %s", pid, printable.Line(string(name)))))
	}
	return fmt.Sprintf("processes that cannot be killed: %d (%s); the machine stays on record, and gc tries again", len(pids), strings.Join(names, ", "))
}

// serviceCgroup returns the path of the control group of a machine's service, without /sys/fs/cgroup: the
// path of the machine's first process up to the name of the service.
func serviceCgroup(leader int, unit string) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", leader))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		if i := strings.Index(path, "/"+unit); i >= 0 {
			return path[:i+1+len(unit)], nil
		}
	}
	return "", fmt.Errorf("its first process is not in the control group of %s", unit)
}
