package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process names a process for good: pids are used again, a pid with its start
// time is not.
type Process struct {
	PID int `json:"pid"`
	// Started is field 22 of /proc/PID/stat: clock ticks since boot.
	Started uint64 `json:"started"`
}

// FindProcess returns the process that has the pid now. The error is os.ErrProcessDone if there is none.
func FindProcess(pid int) (Process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // ESRCH: it ended between open and read
		return Process{}, os.ErrProcessDone
	}
	if err != nil {
		return Process{}, err
	}
	// The second field is the command in parentheses and may hold anything,
	// parentheses too: count from the last one.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("process %d: cannot read its start time", pid)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: start time: %w", pid, err)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, os.ErrProcessDone
	}
	return Process{PID: pid, Started: started}, nil
}

// Alive says whether the process still runs.
func (p Process) Alive() bool {
	now, err := FindProcess(p.PID)
	return err == nil && now.Started == p.Started
}

// Root opens the root directory of the process's mount namespace.
func (p Process) Root() (*os.File, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", p.PID), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	// Checked after opening: what is open now was this process's.
	if !p.Alive() {
		root.Close()
		return nil, os.ErrProcessDone
	}
	return root, nil
}

// Namespace opens a namespace of the process: net or user, as namespaces(7)
// names them.
func (p Process) Namespace(kind string) (*os.File, error) {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.PID, kind))
	if err != nil {
		return nil, err
	}
	if !p.Alive() { // checked after opening, as in Root
		namespace.Close()
		return nil, os.ErrProcessDone
	}
	return namespace, nil
}
