package runner

import (
	"context"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/oci"
	"nspawn-runner/runner/statedir"
)

// PullImage pulls an image from its registry, unless it is on this host as the registry has it
// now, with the credentials of the user who runs this program. An administrator may pull
// images that jobs may not.
func (h *Host) PullImage(ctx context.Context, reference string) (oci.Image, error) {
	if err := host.NeedRoot(); err != nil {
		return oci.Image{}, err
	}
	if err := statedir.Make(h.config.StateDir); err != nil {
		return oci.Image{}, err
	}
	keys, err := oci.UserKeychain(h.env)
	if err != nil {
		return oci.Image{}, err
	}
	return h.oci.Pull(ctx, reference, keys)
}

// RegistryImages lists the images of registries that are on this host.
func (h *Host) RegistryImages() ([]oci.Image, error) { return h.oci.List() }

// RemoveRegistryImage removes the images that a reference or a digest stands for, but for those
// that machines run on.
func (h *Host) RemoveRegistryImage(ctx context.Context, reference string) (oci.Pruned, error) {
	if err := host.NeedRoot(); err != nil {
		return oci.Pruned{}, err
	}
	return h.oci.Remove(ctx, reference)
}

// refreshRegistryImages pulls what the configuration names literally, and says of what it
// cannot why. It fails no maintenance.
func (h *Host) refreshRegistryImages(ctx context.Context) {
	names, err := h.oci.Refreshable()
	if err != nil {
		h.note("warning: images of registries: %v", err)
	}
	for _, name := range names {
		if _, err := h.PullImage(ctx, name); err != nil && ctx.Err() == nil {
			h.note("warning: not refreshed: %v", err)
		}
	}
}
