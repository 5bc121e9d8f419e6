package machine

import (
	"context"
	"fmt"

	"nspawn-runner/runner/guard"
	"nspawn-runner/runner/systemd"
)

// slice has the services of all machines of the host, of all state directories.
const slice = "machine-ci.slice"

// sliceGroup is its control group.
const sliceGroup = "/sys/fs/cgroup/machine.slice/" + slice

// CheckGuard returns an error if this kernel does not support the programs of package guard.
func CheckGuard() error { return guard.Check(sliceGroup) }

// Together are limits for all machines of a host together. The limits of the machines may add up to more
// than the host has. Without these, the host's own services would run out of memory or processes too.
type Together struct {
	MemoryMax, TasksMax uint64 // as in Limits
}

// limitSlice sets the limits for all machines, if they differ from those that are set.
func limitSlice(ctx context.Context, bus *systemd.Bus, all Together) error {
	var missing []systemd.Property
	for name, want := range map[string]uint64{"MemoryMax": all.MemoryMax, "TasksMax": all.TasksMax} {
		var have uint64
		if err := bus.Property(ctx, slice, "Slice", name, &have); err != nil {
			return fmt.Errorf("read %s of %s: %w", name, slice, err)
		}
		if have != want {
			missing = append(missing, systemd.Set(name, want))
		}
	}
	if missing == nil {
		return nil
	}
	if err := bus.SetProperties(ctx, slice, missing); err != nil {
		return fmt.Errorf("limit %s, in which all machines are: %w", slice, err)
	}
	return nil
}
