package job

import (
	"context"
	"errors"
	"os"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/machine"
)

// BuildBooted is the value of the setting build with which playbooks run in a machine.
const BuildBooted = "booted"

// BootGeneration starts a machine for a build. It is like the machines for jobs of the image, but the
// generation's tree itself is its root, and it has a network for downloads.
func (d *Driver) BootGeneration(ctx context.Context, order image.Order) (*box.Machine, error) {
	if err := d.Machines.Collect(ctx); err != nil { // mostly machines of builds that were killed
		d.Note("warning: clean up after dead jobs: %v", err)
	}
	spec, err := d.buildSpec(order)
	if err != nil {
		return nil, err
	}
	order.Begin(machine.Touched(spec))
	if err := d.Machines.Start(ctx, spec); err != nil {
		return nil, err
	}
	entrance, err := d.Machines.Entrance(spec.Job)
	if err != nil {
		return nil, errors.Join(err, d.end(ctx, spec.Job, spec.Owner))
	}
	return &box.Machine{
		PID: entrance.Leader.PID, Alive: entrance.Leader.Alive,
		Owner: entrance.RootUID, Group: entrance.Group,
		LastWords: func(ctx context.Context) []string { return d.Machines.LastWords(ctx, spec.Job, machine.Main) },
		Shutdown:  func(ctx context.Context) error { return d.Machines.Shutdown(ctx, spec.Job) },
		Kill:      func(ctx context.Context) error { return d.end(ctx, spec.Job, spec.Owner) },
	}, nil
}

// buildSpec returns the plan of a build's machine.
func (d *Driver) buildSpec(order image.Order) (machine.Spec, error) {
	settings, err := d.Settings(order.Image)
	if err != nil {
		return machine.Spec{}, err
	}
	spec, err := d.design(order.Image, order.Generation, settings)
	if err != nil {
		return machine.Spec{}, err
	}
	spec = planBuild(spec, order.Hostname)
	if err := spec.Network.Check(); err != nil {
		return machine.Spec{}, err
	}
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		return machine.Spec{}, err
	}
	spec.Caller = &self
	for _, path := range order.Shown {
		shown, err := machine.Bind{From: path, To: path}.Resolved(nil)
		if err != nil {
			return machine.Spec{}, err
		}
		spec.Binds = append(spec.Binds, shown)
	}
	return spec, nil
}

// HaltGeneration removes the machines that run on a generation. A machine of a build that was killed
// may still write to its tree.
func (d *Driver) HaltGeneration(ctx context.Context, generation string) error {
	records, err := d.Machines.Records()
	if err != nil {
		return err
	}
	for _, record := range records {
		if record.Generation == generation {
			if err := d.end(ctx, record.Job, record.Owner); err != nil {
				return err
			}
		}
	}
	return nil
}
