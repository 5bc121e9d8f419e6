package runner

import (
	"context"
	"errors"
	"os"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// buildBooted is the value of the setting build with which playbooks run in a machine.
const buildBooted = "booted"

// bootGeneration starts a machine for a build: as the jobs of the image will have it, but
// with the generation's tree itself for its root, and a way out of its network.
func (h *Host) bootGeneration(ctx context.Context, order image.Order) (*box.Machine, error) {
	if err := h.machines().Collect(ctx); err != nil { // a build that was killed, mostly
		h.note("warning: clean up after dead jobs: %v", err)
	}
	spec, err := h.buildSpec(order)
	if err != nil {
		return nil, err
	}
	order.Begin(machine.Touched(spec))
	if err := h.machines().Start(ctx, spec); err != nil {
		return nil, err
	}
	entrance, err := h.machines().Entrance(spec.ID)
	if err != nil {
		return nil, errors.Join(err, h.end(ctx, spec.ID))
	}
	return &box.Machine{
		PID: entrance.Leader.PID, Alive: entrance.Leader.Alive,
		Owner: entrance.RootUID, Group: entrance.Group,
		Shutdown: func(ctx context.Context) error { return h.machines().Shutdown(ctx, spec.ID) },
		Kill:     func(ctx context.Context) error { return h.end(ctx, spec.ID) },
	}, nil
}

// buildSpec says what a build's machine is like.
func (h *Host) buildSpec(order image.Order) (machine.Spec, error) {
	settings, err := h.imageConfig(order.Image)
	if err != nil {
		return machine.Spec{}, err
	}
	spec, err := h.spec(order.Image, order.Generation, settings)
	if err != nil {
		return machine.Spec{}, err
	}
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		return machine.Spec{}, err
	}
	spec.ID = ownID("build")
	spec.Owner, spec.Caller, spec.MaxRuntime = spec.ID, &self, lifeWithoutTimeout
	spec.Backend, spec.Limits.DiskMax = storage.InPlace(), 0
	spec.Hostname = order.Hostname
	// A playbook that reboots what it builds is refused, and does not end it.
	spec.Masked = []string{"reboot.target", "poweroff.target", "halt.target", "kexec.target", "soft-reboot.target"}
	if spec.Network == network.None { // that is for jobs: a build fetches packages
		spec.Network = network.Private
		if err := spec.Network.Check(); err != nil {
			return machine.Spec{}, err
		}
	}
	for _, path := range order.Shown {
		shown, err := machine.Bind{From: path, To: path}.Resolved(nil)
		if err != nil {
			return machine.Spec{}, err
		}
		spec.Binds = append(spec.Binds, shown)
	}
	return spec, nil
}

// haltGeneration ends the machines that run on a generation: those of a build that was
// killed, which may be writing to its tree.
func (h *Host) haltGeneration(ctx context.Context, generation string) error {
	records, err := h.machines().Records()
	if err != nil {
		return err
	}
	for _, record := range records {
		if record.Generation == generation {
			if err := h.end(ctx, record.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
