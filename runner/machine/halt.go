package machine

import (
	"bytes"
	"cmp"
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

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// halt stops a machine's service, looks that none of its processes is left, and removes
// what systemd keeps of it.
func (s Store) halt(ctx context.Context, bus *systemd.Bus, id string) error {
	record, _ := readRecord(s.dir(id)) // as far as there is one
	return record.withoutFUSE(func() error { return s.stopAndForget(ctx, bus, id, record) })
}

func (s Store) stopAndForget(ctx context.Context, bus *systemd.Bus, id string, record Record) error {
	unit := unitName(id)
	argv, err := bus.Command(ctx, unit)
	if err != nil && !systemd.IsNoSuchUnit(err) {
		return fmt.Errorf("machine %s: look at %s: %w", Name(id), unit, err)
	}
	if len(argv) > 0 && !s.isOf(argv, id) {
		if record.up() {
			return fmt.Errorf("machine %s: %s runs, but for %s", Name(id), unit, argv[len(argv)-1])
		}
		return nil // another state directory on this host has a machine of this id
	}
	s.logf("stop %s", unit)
	if err := stopService(ctx, bus, unit, record, s.patience(id)); err != nil {
		var left survivors
		if errors.As(err, &left) {
			s.noteStop(id, left.Error())
		}
		return fmt.Errorf("machine %s: stop %s: %w", Name(id), unit, err)
	}
	fault.Here("machine: service stopped")
	if err := bus.ResetFailed(ctx, unit); err != nil {
		return fmt.Errorf("machine %s: reset %s: %w", Name(id), unit, err)
	}
	fault.Here("machine: service forgotten")
	s.logf("%s is stopped", unit)
	for _, dir := range mountPoints {
		_ = removeMountPoint(filepath.Join(dir, Name(id)))
	}
	fault.Here("machine: mount points removed")
	return nil
}

// isOf says whether the command line of a machine's service is that of the machine with
// this id here. The directory in it may be called by another name, as behind a link.
func (s Store) isOf(argv []string, id string) bool {
	return len(argv) > 0 && isSame(argv[len(argv)-1], s.dir(id))
}

const (
	// killPause is how often what systemd could not kill is killed again.
	killPause = 100 * time.Millisecond
	// emptyLimit is how long what systemd could not kill may take to go.
	emptyLimit = 5 * time.Second
)

// patience is how long the processes of a machine may take to go. Where they have not
// gone before, each job's prepare would wait for them again.
func (s Store) patience(id string) time.Duration {
	if note, err := os.Stat(filepath.Join(s.dir(id), stopping)); err == nil && note.Size() > 0 {
		return killPause
	}
	return emptyLimit
}

// stopService stops the service of a machine, whose record is needed as far as there is
// one. It fails when a process is left, which then keeps its memory, its disk and its
// user ids: systemd gives up after a while and calls a service stopped all the same.
func stopService(ctx context.Context, bus *systemd.Bus, unit string, record Record, patience time.Duration) error {
	var group string
	err := bus.Property(ctx, unit, "Service", "ControlGroup", &group)
	if err != nil && !systemd.IsNoSuchUnit(err) {
		return err
	}
	group = cmp.Or(group, record.Cgroup)
	if err := bus.Stop(ctx, unit); err != nil || group == "" {
		return err
	}
	return awaitEmpty(ctx, group, patience)
}

// awaitEmpty kills what is left in a control group, and waits until nothing is.
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
		// The kernel wakes us when the last one is gone: cgroup-v2.rst.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(killPause.Milliseconds()))
	}
}

// isPopulated reads in cgroup.events whether there is a process in a control group or
// below. A control group that has been removed is empty.
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

// processes are the ids of those in a control group and below.
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
