package image

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// door leads commands into a container by its namespaces, in 3 ms. It holds them open:
// a command that enters by it enters this container or none, while the number of a
// process could come to mean another process, on the host.
type door struct {
	through []entrance
	handles map[string]*os.File // of entrances, by their options
	become  []string            // nsenter's options for who one is inside
	first   []string            // the beginning of each command, inside
	// owner is the host's user id of root inside, group the directory of the control
	// group of commands, "" for that of whoever calls.
	owner int
	group string
}

// entrance is an option of nsenter, and the file in /proc/PID that belongs to it.
type entrance struct{ option, file string }

// entrances are what each container has of its own.
var entrances = []entrance{
	{"--mount", "ns/mnt"},
	{"--uts", "ns/uts"},
	{"--ipc", "ns/ipc"},
	{"--pid", "ns/pid"},
	{"--root", "root"},
	{"--wd", "root"},
}

// openDoor opens a way into the container of a process.
func openDoor(pid int, through []entrance) (*door, error) {
	d := &door{through: through, handles: map[string]*os.File{}}
	for _, entrance := range through {
		handle, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), entrance.file))
		if err != nil {
			d.Close()
			return nil, err
		}
		d.handles[entrance.option] = handle
	}
	return d, nil
}

// enter is the beginning of a command line that runs a command inside. It works in any
// process of this user, as long as the door is open.
func (d *door) enter() []string {
	args := []string{"nsenter"}
	for _, entrance := range d.through {
		args = append(args, fmt.Sprintf("%s=/proc/%d/fd/%d", entrance.option, os.Getpid(), d.handles[entrance.option].Fd()))
	}
	return slices.Concat(args, d.become, []string{"--"}, d.first)
}

// Close closes it. What entered stays inside.
func (d *door) Close() {
	for _, handle := range d.handles {
		handle.Close()
	}
}
