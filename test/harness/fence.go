package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fence is a control group that holds all processes of one lab, in each of
// the machine's hierarchies that matters: the unified one, where the lab's
// systemd makes its own groups below, and, where they are still of version 1,
// systemd's and those that limit memory and processes. Without groups of
// their own, two labs would share one.
type fence struct {
	unified string
	legacy  []string
}

// newFence names the groups of the lab name; raise makes them.
func newFence(name string) (fence, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fence{}, fmt.Errorf("cgroup: %w", err)
	}
	unified, legacy := hierarchies(string(mounts))
	if unified == "" {
		return fence{}, errors.New("cgroup: no cgroup2 file system is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
	}
	f := fence{unified: filepath.Join(unified, name)}
	for _, dir := range legacy {
		f.legacy = append(f.legacy, filepath.Join(dir, name))
	}
	return f, nil
}

// hierarchies finds in a mountinfo file where the unified hierarchy and the
// version 1 hierarchies that matter are mounted.
func hierarchies(mountinfo string) (unified string, legacy []string) {
	wanted := []string{"name=systemd", "memory", "pids"}
	for line := range strings.Lines(mountinfo) {
		// ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS ... - TYPE SOURCE OPTIONS
		left, right, _ := strings.Cut(line, " - ")
		mount, super := strings.Fields(left), strings.Fields(right)
		if len(mount) < 5 || len(super) < 3 {
			continue
		}
		switch super[0] {
		case "cgroup2":
			if unified == "" {
				unified = mount[4]
			}
		case "cgroup":
			options := strings.Split(super[2], ",")
			i := slices.IndexFunc(wanted, func(w string) bool { return slices.Contains(options, w) })
			if i >= 0 {
				wanted = slices.Delete(wanted, i, i+1)
				legacy = append(legacy, mount[4])
			}
		}
	}
	return unified, legacy
}

// raise makes the groups and sets what limits they know.
func (f fence) raise(memory int64, tasks int) error {
	for _, dir := range f.dirs() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		for file, limit := range map[string]int64{
			"memory.max":            memory,
			"memory.limit_in_bytes": memory,
			"pids.max":              int64(tasks),
		} {
			// A group without the controller has no such file.
			err := os.WriteFile(filepath.Join(dir, file), strconv.AppendInt(nil, limit, 10), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("cgroup: limit: %w", err)
			}
		}
	}
	return nil
}

func (f fence) dirs() []string { return append([]string{f.unified}, f.legacy...) }

// inside wraps a command so that it runs in the groups: a shell enters them
// before it becomes the command, and so nothing the command starts escapes.
func (f fence) inside(unified string, argv ...string) []string {
	const enter = `while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"`
	return slices.Concat([]string{"/bin/sh", "-c", enter, "sh", unified}, f.legacy, []string{"--"}, argv)
}

// raze kills everything in the groups and removes them.
func (f fence) raze(ctx context.Context) error {
	if err := killGroup(f.unified); err != nil {
		return err
	}
	for _, dir := range f.dirs() {
		// A process that was killed stays in its group until it is dead.
		for err := removeGroups(dir); err != nil; err = removeGroups(dir) {
			if pause(ctx, 5*time.Millisecond) != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
		}
	}
	return nil
}

// killGroup kills all processes of a control group, and of those below it.
func killGroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroup: kill: %w", err)
	}
	return nil
}

// processes are those in a control group and in those below it.
func processes(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// removeGroups removes a control group and all below it, deepest first. They
// hold files that cannot be removed, and go when they have no group below.
func removeGroups(dir string) error {
	below, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range below {
		if e.IsDir() {
			err = errors.Join(err, removeGroups(filepath.Join(dir, e.Name())))
		}
	}
	if err == nil {
		err = os.Remove(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
