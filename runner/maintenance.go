package runner

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/image"
)

// Maintenance says how images are maintained.
type Maintenance struct {
	// Image is the only one, "" for all.
	Image string
	// Recreate builds them from scratch.
	Recreate bool
	// IfOlder skips those that were maintained less than this time ago.
	IfOlder Age
	// NoWait fails on those that are being built already.
	NoWait bool
	// Jobs is how many images are built at a time, 0 for what the host's
	// processors and memory allow.
	Jobs int
	// JSON prints what goes on as JSON, an object a line, on standard output.
	JSON bool
}

// failed is the result of a maintenance that came to no image.Outcome.
const failed image.Outcome = "failed"

// result is what became of an image.
type result struct {
	Image      string        `json:"-"`
	Result     image.Outcome `json:"result"`
	Generation string        `json:"generation,omitempty"`
	Seconds    float64       `json:"seconds"`
	Error      string        `json:"error,omitempty"`

	err error
}

// String is a line for people.
func (m result) String() string {
	switch m.Result {
	case image.Published:
		return fmt.Sprintf("%s: published, generation %s", m.Image, m.Generation)
	case image.Unchanged:
		return fmt.Sprintf("%s: up to date, generation %s stays", m.Image, m.Generation)
	case image.Fresh:
		return fmt.Sprintf("%s: maintained not long ago, generation %s stays", m.Image, m.Generation)
	}
	return m.Error
}

// ChrootMaintenance runs the playbooks of images, and creates what is missing.
// It goes on after a failure, and ends with a table of all images.
func (h *Host) ChrootMaintenance(ctx context.Context, how Maintenance) error {
	if how.Jobs < 0 {
		return fmt.Errorf("%d images at a time: want at least one", how.Jobs)
	}
	asked := []string{how.Image}
	names := asked
	if how.Image == "" {
		asked = nil // one with an odd name is that one's failure
		var err error
		if names, err = h.maintainable(); err != nil {
			return err
		}
		if len(names) == 0 {
			h.say("no playbooks in %s or %s", h.Config.PlaybookDir, h.Config.StateDir)
		}
	}
	if err := h.needImages(asked...); err != nil {
		return err
	}
	all := h.maintainAll(ctx, names, how)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if how.Image == "" {
		h.pruneRemoved(ctx)
	}
	bad := slices.DeleteFunc(slices.Clone(all), func(m result) bool { return m.err == nil })
	switch {
	case how.Image != "" && len(bad) == 1:
		return bad[0].err
	case how.Image != "" || how.JSON || len(all) == 0:
	default:
		if err := h.printMaintained(all); err != nil {
			return err
		}
	}
	if len(bad) > 0 {
		var names []string
		for _, m := range bad {
			names = append(names, m.Image)
		}
		return fmt.Errorf("maintenance of %d of %d images failed: %q", len(bad), len(all), names)
	}
	return nil
}

// maintainAll maintains images, some at a time, and returns what became of each
// in the order of their names.
func (h *Host) maintainAll(ctx context.Context, names []string, how Maintenance) []result {
	show := h.showProgress(how.JSON)
	defer show.close()
	jobs := how.Jobs
	if jobs == 0 {
		jobs = buildsAtOnce()
	}
	all := make([]result, len(names))
	free := make(chan struct{}, jobs)
	var running sync.WaitGroup
	for i, name := range names {
		free <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-free }()
			all[i] = h.maintain(ctx, name, how, show)
			// The error of an only image is the command's, which prints it. Of
			// what was stopped, one line is enough.
			if ctx.Err() == nil && (how.Image == "" || how.JSON || all[i].err == nil) {
				show.ended(all[i])
			}
		})
	}
	running.Wait()
	return all
}

// maintain maintains one image. It checks its settings before it spends minutes
// on it.
func (h *Host) maintain(ctx context.Context, name string, how Maintenance, show *progress) result {
	began := time.Now()
	m := result{Image: name}
	var generation image.Generation
	var settings config.Config
	if settings, m.err = h.buildConfig(name); m.err == nil {
		store := h.images()
		store.Progress = show.tell
		generation, m.Result, m.err = store.Maintain(ctx, name, image.MaintainOptions{
			Bootstrap: bootstrap(settings), Booted: settings.Build == buildBooted, Recreate: how.Recreate || settings.MaintRecreate,
			IfOlder: time.Duration(how.IfOlder), NoWait: how.NoWait,
		})
	}
	m.Generation = generation.Name
	m.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	if m.err != nil {
		m.Result, m.Error = failed, m.err.Error()
	}
	return m
}

// memoryOfABuild is what a bootstrap and ansible take at the most, in bytes, with
// room for what they read: seen were 400 MB.
const memoryOfABuild = 1 << 30

// buildsAtOnce is how many builds this host bears, and jobs beside them: one for
// each processor, if there is memory for them.
func buildsAtOnce() int {
	total, err := memory()
	if err != nil {
		return 1
	}
	return max(1, min(runtime.NumCPU(), int(total/2/memoryOfABuild)))
}

// maintainable lists the images that have a playbook.
func (h *Host) maintainable() ([]string, error) {
	images, err := h.images().List()
	if err != nil {
		return nil, err
	}
	beside, err := h.images().Beside()
	if err != nil {
		return nil, err
	}
	if len(beside) > 0 {
		h.say("skipped, since no image is made of them: %s", strings.Join(beside, ", "))
	}
	var names []string
	for _, i := range images {
		if i.Playbook == "" {
			h.say("%s: no playbook, so nothing to maintain", i.Name)
			continue
		}
		names = append(names, i.Name)
	}
	return names, nil
}

func (h *Host) printMaintained(all []result) error {
	table := tabwriter.NewWriter(h.Stderr, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tRESULT\tGENERATION\tTIME")
	for _, m := range all {
		took := time.Duration(m.Seconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.Image, m.Result, m.Generation, took)
	}
	return table.Flush()
}
