package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/image/debian"
	"nspawn-runner/runner/storage"
)

// Image is an image, with a chroot or a playbook or both.
type Image struct {
	Name       string `json:"name"`
	Path       string `json:"path"` // of its chroot, or of where that will be
	Exists     bool   `json:"exists"`
	Generation string `json:"generation,omitempty"` // the current one's name
	Playbook   string `json:"playbook,omitempty"`   // its path
}

// Generation is all that is known of a generation of an image.
type Generation struct {
	Generation string `json:"generation"`
	Path       string `json:"path"`
	Current    bool   `json:"current"`
	image.Record
	// Exclusive is how much of Bytes no other tree shares, on btrfs; elsewhere
	// it is -1.
	Exclusive int64    `json:"exclusive_bytes"`
	Jobs      []string `json:"jobs"` // ids of the machines that run on it
}

// ImageHistory is an image with its generations.
type ImageHistory struct {
	Image
	PlaybookState image.PlaybookState `json:"playbook_state"`
	Stale         bool                `json:"stale"`                  // its last maintenance is longer ago than max_age
	FailedBuild   string              `json:"failed_build,omitempty"` // where the tree of one lies
	Generations   []Generation        `json:"generations"`
}

// ImageContents is an image with what is in its current generation.
type ImageContents struct {
	ImageHistory
	Release  string `json:"release,omitempty"`
	Packages int    `json:"packages"`
}

// Images lists the images, playbooks without a chroot too.
func (h *Host) Images() ([]Image, error) {
	images, err := h.images.List()
	if errors.Is(err, fs.ErrPermission) { // the state directory is closed to others
		err = cmp.Or(host.NeedRoot(), err)
	}
	if err != nil {
		return nil, err
	}
	all := []Image{}
	for _, i := range images {
		all = append(all, h.summary(i))
	}
	return all, nil
}

func (h *Host) summary(i image.Image) Image {
	summary := Image{Name: i.Name, Path: i.Path, Exists: i.Exists, Playbook: i.Playbook}
	if generation, err := h.images.Current(i.Name); err == nil {
		summary.Generation = generation.Name
	}
	return summary
}

// ImageHistories lists the images with their generations.
func (h *Host) ImageHistories(ctx context.Context) ([]ImageHistory, error) {
	if err := host.NeedRoot(); err != nil { // the state directory is closed to others
		return nil, err
	}
	images, err := h.images.List()
	if err != nil {
		return nil, err
	}
	all := []ImageHistory{}
	for _, i := range images {
		history, err := h.history(ctx, i)
		if err != nil {
			return nil, err
		}
		all = append(all, history)
	}
	return all, nil
}

// history collects what is known of an image.
func (h *Host) history(ctx context.Context, i image.Image) (ImageHistory, error) {
	store := h.images
	known := ImageHistory{Image: h.summary(i), Generations: []Generation{}}
	generations, err := store.Generations(i.Name)
	if err != nil {
		return known, err
	}
	machines, err := h.machines.Records()
	if err != nil {
		return known, err
	}
	var ran image.Record
	for _, generation := range generations {
		record, err := store.Record(generation)
		if err != nil {
			return known, err
		}
		if record.Bytes == 0 {
			if record.Bytes, err = storage.Usage(ctx, generation.Path); err != nil {
				return known, err
			}
		}
		exclusive, ok := storage.Exclusive(ctx, generation.Path)
		if !ok {
			exclusive = -1
		}
		row := Generation{generation.Name, generation.Path, generation.Name == known.Generation, record, exclusive, []string{}}
		for _, m := range machines {
			if m.Generation == generation.Name && !slices.Contains(row.Jobs, m.Job) {
				row.Jobs = append(row.Jobs, m.Job)
			}
		}
		if row.Current {
			ran = record
		}
		known.Generations = append(known.Generations, row)
	}
	known.PlaybookState = i.PlaybookState(ran)
	if settings, err := h.Jobs.Settings(i.Name); err == nil { // a bad playbook is for others to report
		known.Stale = ran.Stale(settings.MaxAge)
	}
	if failed, err := store.Failed(i.Name); err == nil {
		known.FailedBuild = failed
	}
	return known, nil
}

// ImageContents is what is known of one image.
func (h *Host) ImageContents(ctx context.Context, name string) (ImageContents, error) {
	var contents ImageContents
	if err := h.needImages(name); err != nil {
		return contents, err
	}
	store := h.images
	known, err := store.Get(name)
	if err != nil {
		return contents, err
	}
	if contents.ImageHistory, err = h.history(ctx, known); err != nil {
		return contents, err
	}
	if !known.Exists {
		return contents, nil
	}
	current, err := store.Current(name)
	if err != nil {
		return contents, err
	}
	packages, err := debian.Packages(current.Path)
	if err != nil {
		return contents, fmt.Errorf("image %s: %w", name, err)
	}
	contents.Packages = len(packages)
	if contents.Release, err = debian.Release(current.Path); err != nil {
		return contents, fmt.Errorf("image %s: %w", name, err)
	}
	return contents, nil
}

// ImageDiff is which packages differ between two generations of an image.
type ImageDiff struct {
	Image   string                 `json:"image"`
	Before  string                 `json:"before"` // the names of both
	After   string                 `json:"after"`
	Changes []debian.PackageChange `json:"changes"`
}

// Diff compares an image's current generation with the one before it.
func (h *Host) Diff(name string) (ImageDiff, error) {
	if err := h.needImages(name); err != nil {
		return ImageDiff{}, err
	}
	store := h.images
	now, err := store.Current(name)
	if err != nil {
		return ImageDiff{}, err
	}
	was, err := store.Previous(name, now)
	if errors.Is(err, image.ErrNothingOlder) {
		return ImageDiff{}, fmt.Errorf("image %s: there is no older generation to compare with", name)
	}
	if err != nil {
		return ImageDiff{}, err
	}
	before, err := debian.Packages(was.Path)
	if err != nil {
		return ImageDiff{}, fmt.Errorf("generation %s: %w", was.Name, err)
	}
	after, err := debian.Packages(now.Path)
	if err != nil {
		return ImageDiff{}, fmt.Errorf("generation %s: %w", now.Name, err)
	}
	return ImageDiff{name, was.Name, now.Name, debian.ComparePackages(before, after)}, nil
}
