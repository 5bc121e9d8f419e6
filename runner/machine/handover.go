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

// mostGroups is how many control groups a machine may make. A booted machine has about fifty, and each
// container in it one or two. The kernel has 65,535 ids for control groups that count memory, for the
// whole host (MEM_CGROUP_ID_MAX in mm/memcontrol.c). Without free ids, no service of the host can start.
const mostGroups = 2000

// handOver prepares a machine that is up for its job: it limits and delegates its control groups, and
// takes from systemd-nspawn the way to the host's systemd.
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

// limitGroups limits the number of a machine's control groups, and shows the machine its limits.
func limitGroups(cgroup string) error {
	limit := filepath.Join("/sys/fs/cgroup", cgroup, "cgroup.max.descendants")
	if err := os.WriteFile(limit, []byte(strconv.Itoa(mostGroups)), 0); err != nil {
		return fmt.Errorf("limit its control groups: %w", err)
	}
	return showLimits(cgroup)
}

// showLimits writes the limits of a machine's service to the control group that is the root of the
// hierarchy for the machine's processes. Programs read there how much memory and how many processors they
// have. The limits of the service hold in any case.
func showLimits(cgroup string) error {
	service := filepath.Join("/sys/fs/cgroup", cgroup)
	for _, name := range []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
		shown := filepath.Join(service, "payload", name)
		if !exists(shown) {
			continue // the host does not have this controller, or does not delegate it
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

// muteNotify cuts the connection of a systemd-nspawn to the host's service manager. It has said that the
// machine is ready. Later, the machine's first process, which the job can replace, could have it report any
// status of the service, also control characters, which systemctl writes to the terminal (seen with
// systemd 252).
func muteNotify(nspawn int) error {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", nspawn))
	if err != nil {
		return err
	}
	defer namespace.Close()
	done := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine: it is in another mount
		// namespace.
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
