package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"nspawn-runner/runner/age"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/job"
)

// Maintenance says how images are maintained.
type Maintenance struct {
	// Image is the only one, "" for all.
	Image string
	// Recreate builds them from scratch.
	Recreate bool
	// IfOlder skips those that were maintained less than this time ago.
	IfOlder age.Age
	// NoWait fails on those that are being built already.
	NoWait bool
	// Jobs is how many images are built at a time, 0 for what the host's
	// processors and memory allow.
	Jobs int
}

// Maintain runs the playbooks of images, and creates what is missing. It goes on after a
// failure; that is in what it returns, which is complete if the error is nil.
func (h *Host) Maintain(ctx context.Context, how Maintenance) ([]Maintained, error) {
	if how.Jobs < 0 {
		return nil, fmt.Errorf("%d images at a time: want at least one", how.Jobs)
	}
	asked := []string{how.Image}
	names := asked
	if how.Image == "" {
		asked = nil // one with an odd name is that one's failure
		var err error
		if names, err = h.maintainable(); err != nil {
			return nil, err
		}
		if len(names) == 0 {
			h.note("no playbooks in %s or %s", h.config.PlaybookDir, h.config.StateDir)
		}
	}
	if err := h.needImages(asked...); err != nil {
		return nil, err
	}
	all := h.maintainAll(ctx, names, how)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if how.Image == "" {
		h.pruneRemoved(ctx)
		h.refreshRegistryImages(ctx)
	}
	return all, nil
}

// maintainAll maintains images, some at a time, and returns what became of each
// in the order of their names.
func (h *Host) maintainAll(ctx context.Context, names []string, how Maintenance) []Maintained {
	jobs := how.Jobs
	if jobs == 0 {
		jobs = buildsAtOnce()
	}
	all := make([]Maintained, len(names))
	free := make(chan struct{}, jobs)
	var running sync.WaitGroup
	for i, name := range names {
		free <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-free }()
			all[i] = h.maintain(ctx, name, how)
			if ctx.Err() == nil { // of what was stopped, one line is enough
				h.tell(Event{Image: name, Maintained: &all[i]})
			}
		})
	}
	running.Wait()
	return all
}

// maintain maintains one image. It checks its settings before it spends minutes
// on it.
func (h *Host) maintain(ctx context.Context, name string, how Maintenance) Maintained {
	began := time.Now()
	m := Maintained{Image: name}
	var generation image.Generation
	var settings config.Config
	if settings, m.err = h.Jobs.BuildSettings(name); m.err == nil {
		generation, m.Result, m.err = h.images.Maintain(ctx, name, image.MaintainOptions{
			Bootstrap: bootstrap(settings), Booted: settings.Build == job.BuildBooted, Recreate: how.Recreate || settings.MaintRecreate,
			IfOlder: time.Duration(how.IfOlder), NoWait: how.NoWait,
		})
	}
	m.Generation = generation.Name
	m.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	if m.err != nil {
		m.Result, m.Error = Failed, m.err.Error()
	}
	if busy := (*image.BusyError)(nil); ctx.Err() == nil && !errors.As(m.err, &busy) {
		h.Jobs.Count(m.samples()...)
	}
	return m
}

// memoryOfABuild is what a bootstrap and ansible take at the most, in bytes, with
// room for what they read: seen were 400 MB.
const memoryOfABuild = 1 << 30

// buildsAtOnce is how many builds this host bears, and jobs beside them: one for
// each processor, if there is memory for them.
func buildsAtOnce() int {
	total, err := host.Memory()
	if err != nil {
		return 1
	}
	return max(1, min(runtime.NumCPU(), int(total/2/memoryOfABuild)))
}

// maintainable lists the images that have a playbook.
func (h *Host) maintainable() ([]string, error) {
	images, err := h.images.List()
	if err != nil {
		return nil, err
	}
	beside, err := h.images.Beside()
	if err != nil {
		return nil, err
	}
	if len(beside) > 0 {
		h.note("skipped, since no image is made of them: %s", strings.Join(beside, ", "))
	}
	var names []string
	for _, i := range images {
		if i.Playbook == "" {
			h.note("%s: no playbook, so nothing to maintain", i.Name)
			continue
		}
		names = append(names, i.Name)
	}
	return names, nil
}
