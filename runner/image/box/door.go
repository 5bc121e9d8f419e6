package box

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/apparmor"
)

// Door leads commands into a container by its namespaces, in 3 ms. It holds them open:
// a command that enters by it enters this container or none, while the number of a
// process could come to mean another process, on the host.
type Door struct {
	through []entrance
	handles map[string]*os.File // of entrances, by their options
	become  []string            // nsenter's options: which user a command is inside
	first   []string            // the beginning of each command, inside
	// Owner is the host's user id of root inside.
	Owner int
	// Group is the directory of the control group of commands, "" for the caller's.
	Group string
}

// entrance is an option of nsenter, and the file in /proc/PID that belongs to it.
type entrance struct{ option, file string }

// entrances are what a container may have of its own. A box has the host's network, and
// users, as a privileged machine has.
var entrances = []entrance{
	{"--user", "ns/user"},
	{"--net", "ns/net"},
	{"--cgroup", "ns/cgroup"},
	{"--mount", "ns/mnt"},
	{"--uts", "ns/uts"},
	{"--ipc", "ns/ipc"},
	{"--pid", "ns/pid"},
	{"--root", "root"},
	{"--wd", "root"},
}

// openDoor opens a way into the container of a process. What the container shares with
// the host need not be entered, and a user namespace cannot be entered twice.
func openDoor(pid int) (*Door, error) {
	d := &Door{handles: map[string]*os.File{}}
	for _, entrance := range entrances {
		path := filepath.Join("/proc", strconv.Itoa(pid), entrance.file)
		if is, err := isOurs(path, entrance.file); err != nil || is {
			if err != nil {
				d.Close()
				return nil, err
			}
			continue
		}
		handle, err := os.Open(path)
		if err != nil {
			d.Close()
			return nil, err
		}
		d.through = append(d.through, entrance)
		d.handles[entrance.option] = handle
	}
	return d, nil
}

// isOurs says whether a namespace of a process is also this process's.
func isOurs(path, file string) (bool, error) {
	if !strings.HasPrefix(file, "ns/") {
		return false, nil
	}
	its, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	ours, err := os.Stat(filepath.Join("/proc/self", file))
	return err == nil && os.SameFile(its, ours), err
}

// Enter is the beginning of a command line that runs a command inside, where no AppArmor profile
// of the host applies. It works in any process of this user, as long as the door is open.
func (d *Door) Enter() []string {
	args := outside("nsenter")
	for _, entrance := range d.through {
		args = append(args, fmt.Sprintf("%s=/proc/%d/fd/%d", entrance.option, os.Getpid(), d.handles[entrance.option].Fd()))
	}
	return slices.Concat(args, d.become, []string{"--"}, d.first)
}

// outside is a command line that executes argv outside of the host's AppArmor profiles, if that
// can be had: a build goes on without.
func outside(argv ...string) []string {
	command, _ := apparmor.Command(argv...)
	return command
}

// Close closes it. What entered stays inside.
func (d *Door) Close() {
	for _, handle := range d.handles {
		handle.Close()
	}
}

// Machine is a machine that runs from a tree that is being built.
type Machine struct {
	// PID is its first process, Alive says whether that still is it.
	PID   int
	Alive func() bool
	// Owner is the host's user id of its root, 0 where that is the host's.
	Owner int
	// Group is the directory of the control group for commands from outside.
	Group string
	// LastWords are the last lines that its services and programs said.
	LastWords func(context.Context) []string
	// Shutdown shuts it down in good order, Kill at once; nothing of it is left then.
	Shutdown, Kill func(context.Context) error
}

// Open opens a way into the machine.
func (m *Machine) Open() (*Door, error) {
	d, err := openDoor(m.PID)
	if err != nil {
		return nil, err
	}
	d.Owner, d.Group = m.Owner, m.Group
	if m.Owner > 0 {
		d.become = []string{"--setuid=0", "--setgid=0"}
	}
	d.first, err = asBoundAs(m.PID)
	if err == nil && !m.Alive() { // asked after opening: what is open is the machine's
		err = errors.New("the machine of the build has ended")
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// asBoundAs is a command that gives the one behind it no more capabilities than a
// process can ever have: a command that enters a machine from outside has all of them.
func asBoundAs(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	var bound uint64
	for line := range strings.Lines(string(text)) {
		if set, is := strings.CutPrefix(line, "CapBnd:"); is {
			if _, err := fmt.Sscanf(set, "%x", &bound); err != nil {
				return nil, fmt.Errorf("capabilities of process %d: %w", pid, err)
			}
		}
	}
	var last int
	text, err = os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		_, err = fmt.Sscan(string(text), &last)
	}
	if err != nil {
		return nil, err
	}
	var without []string
	for capability := range last + 1 {
		if bound&(1<<capability) == 0 {
			without = append(without, fmt.Sprintf("-cap_%d", capability))
		}
	}
	if without == nil {
		return nil, nil
	}
	return []string{"setpriv", "--bounding-set=" + strings.Join(without, ","), "--"}, nil
}

// KeepGoing continues each nsenter that is stopped, until the returned function is called.
// nsenter stops itself when what it executed is stopped, as systemd does with all that runs
// in a machine before it turns that off; nothing outside would ever continue it, and in the
// kernel the machine waits for it.
func (d *Door) KeepGoing() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ctx.Err() == nil {
			text, _ := os.ReadFile(filepath.Join(d.Group, "cgroup.procs"))
			for word := range strings.FieldsSeq(string(text)) {
				pid, _ := strconv.Atoi(word)
				if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(stat), " (nsenter) T ") {
					_ = unix.Kill(pid, unix.SIGCONT)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return cancel
}
