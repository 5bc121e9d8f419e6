package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/systemd"
)

// mostGroups is how many control groups a machine may make. A booted one has some fifty,
// each container in it one or two. The kernel has 65,535 ids for those that count memory,
// for all of the host (MEM_CGROUP_ID_MAX in mm/memcontrol.c): whoever takes them keeps
// each service of the host from starting.
const mostGroups = 2000

// handOver takes from a machine that is up what only its boot needs, and what it could
// take from others. From now on it is its job's.
func handOver(ctx context.Context, bus *systemd.Bus, record Record) error {
	if err := limitGroups(record.Cgroup); err != nil {
		return err
	}
	if err := delegate(record.payload(), record); err != nil {
		return err
	}
	var nspawn uint32
	if err := bus.Property(ctx, unitName(record.ID), "Service", "MainPID", &nspawn); err != nil {
		return err
	}
	if err := muteNotify(int(nspawn)); err != nil {
		return fmt.Errorf("cover /run/systemd/notify: %w", err)
	}
	return nil
}

// limitGroups bounds the control groups of a machine, and shows it its limits.
func limitGroups(cgroup string) error {
	limit := filepath.Join("/sys/fs/cgroup", cgroup, "cgroup.max.descendants")
	if err := os.WriteFile(limit, []byte(strconv.Itoa(mostGroups)), 0); err != nil {
		return fmt.Errorf("limit its control groups: %w", err)
	}
	return showLimits(cgroup)
}

// showLimits writes the limits of a machine's service to the group below it that its
// processes take for the root: programs read there how much memory and how many
// processors they have. The service's hold in any case.
func showLimits(cgroup string) error {
	service := filepath.Join("/sys/fs/cgroup", cgroup)
	for _, name := range []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
		shown := filepath.Join(service, "payload", name)
		if !exists(shown) {
			continue // a host without this controller, or one that hands it no further
		}
		limit, err := os.ReadFile(filepath.Join(service, name))
		if err == nil {
			err = os.WriteFile(shown, limit, 0)
		}
		if err != nil {
			return fmt.Errorf("show its limits: %w", err)
		}
	}
	return nil
}

// muteNotify keeps a systemd-nspawn from saying any more to the host's service manager.
// That it is ready it has said; a machine's first process, which may be any program of
// the job's, has it say what it likes as the service's status, control characters too,
// and systemctl writes them to whose terminal it is (seen with systemd 252).
func muteNotify(nspawn int) error {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", nspawn))
	if err != nil {
		return err
	}
	defer namespace.Close()
	done := make(chan error)
	go func() {
		// This goroutine's thread is never unlocked, so that it ends with it: it has
		// another mount namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.Mount("/dev/null", "/run/systemd/notify", "", unix.MS_BIND, "")
		}
		if err == unix.ENOENT {
			err = nil // a systemd that listens elsewhere
		}
		done <- err
	}()
	return <-done
}
