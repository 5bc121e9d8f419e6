package machine

import (
	"context"
	"fmt"

	"nspawn-runner/runner/guard"
	"nspawn-runner/runner/systemd"
)

// slice holds the services of all machines of the host, of whatever state directory.
const slice = "machine-ci.slice"

// sliceGroup is its control group.
const sliceGroup = "/sys/fs/cgroup/machine.slice/" + slice

// CheckGuard says whether this kernel asks programs what machines do.
func CheckGuard() error { return guard.Check(sliceGroup) }

// Together is what all machines of a host may take at a time. The limits of each add up
// to more than there is, and where the host is without memory or processes, the kernel
// takes no side between its services and its jobs.
type Together struct {
	MemoryMax, TasksMax uint64 // as in Limits
}

// limitSlice sets the limits of all machines, where they are not set yet.
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
