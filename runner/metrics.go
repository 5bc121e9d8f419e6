package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"nspawn-runner/runner/doctor"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
	"nspawn-runner/runner/statedir"
	"nspawn-runner/runner/storage"
)

// TextfileName is the file in the directory of node_exporter's textfile collector.
const TextfileName = "nspawn-runner.prom"

// Metrics returns what is counted on this host, and what is so at the moment, as text for
// Prometheus. What cannot be found out is left out, and noted.
func (h *Host) Metrics(ctx context.Context) ([]byte, error) {
	if err := host.NeedRoot(); err != nil {
		return nil, err
	}
	c := collector{host: h}
	c.counted(ctx)
	c.build(ctx)
	c.machines()
	c.images()
	c.state(ctx)
	c.doctor(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var text bytes.Buffer
	err := metrics.Write(&text, metrics.Families, c.numbers)
	return text.Bytes(), err
}

// WriteTextfile writes Metrics into a directory of node_exporter's textfile collector, which
// reads the old file or the new one. The directory must be there.
func (h *Host) WriteTextfile(ctx context.Context, dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("textfile directory %s: it is a file", dir)
	} else if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("textfile directory %s: it does not exist: name the directory that node_exporter reads (its --collector.textfile.directory), or make it", dir)
	}
	text, err := h.Metrics(ctx)
	if err != nil {
		return err
	}
	// Its temporary file does not end in .prom, so node_exporter does not read it.
	err = renameio.WriteFile(filepath.Join(dir, TextfileName), text, 0o644, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o644))
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // without the name of that file, which tells nobody anything
	}
	if err != nil {
		return fmt.Errorf("textfile directory %s: %w", dir, err)
	}
	return nil
}

// collector collects what is counted, and what is so at the moment.
type collector struct {
	host    *Host
	numbers []metrics.Number
}

func (c *collector) set(f *metrics.Family, value float64, labels ...string) {
	c.numbers = append(c.numbers, metrics.Number{Family: f.Name, Labels: labels, Value: value})
}

// missing notes why a number is missing.
func (c *collector) missing(what string, err error) {
	c.host.note("warning: metrics without %s: %v", what, err)
}

// counted takes what stages and maintenances counted. What keeps it from that, such as a broken
// disk, is most often what the other numbers tell of.
func (c *collector) counted(ctx context.Context) {
	numbers, broken, err := c.host.Jobs.Counted(ctx)
	if broken != nil {
		c.host.note("warning: %v", broken)
	}
	if err != nil {
		c.missing("counters", err)
		return
	}
	c.numbers = numbers
}

func (c *collector) build(ctx context.Context) {
	systemd, kernel := doctor.Versions(ctx)
	c.set(metrics.BuildInfo, 1, Version, systemd, kernel)
}

// machines counts all kinds of machines, so that a kind of which there are none is zero.
func (c *collector) machines() {
	all, err := c.host.machines.Standings()
	if err != nil {
		c.missing("machines", err)
		return
	}
	count := map[[2]string]float64{}
	for _, m := range all {
		kind := "job"
		if m.Role != machine.Main {
			kind = "service"
		}
		count[[2]string{m.Now, kind}]++
	}
	for _, state := range metrics.Machines.Labels[0].Values {
		for _, kind := range metrics.Machines.Labels[1].Values {
			c.set(metrics.Machines, count[[2]string{state, kind}], state, kind)
		}
	}
}

// images tells of images that have a chroot.
func (c *collector) images() {
	all, err := c.host.images.List()
	if err != nil {
		c.missing("images", err)
		return
	}
	for _, i := range all {
		if !i.Exists {
			continue
		}
		if err := c.image(i.Name); err != nil {
			c.missing("image "+i.Name, err)
		}
	}
}

func (c *collector) image(name string) error {
	store := c.host.images
	current, err := store.Current(name)
	if err != nil {
		return err
	}
	record, err := store.Record(current)
	if err != nil {
		return err
	}
	generations, err := store.Generations(name)
	if err != nil {
		return err
	}
	c.set(metrics.ImageInfo, 1, name, filepath.Base(current.Name), record.Suite)
	c.set(metrics.ImageGenerations, float64(len(generations)), name)
	for f, at := range map[*metrics.Family]time.Time{metrics.ImageBuilt: record.Built, metrics.MaintenanceSuccess: record.LastMaintained()} {
		if !at.IsZero() {
			c.set(f, float64(at.Unix()), name)
		}
	}
	if record.Bytes > 0 { // generations of older programs did not note it; counting takes seconds
		c.set(metrics.ImageSize, float64(record.Bytes), name)
	}
	return nil
}

// measureLimit bounds how long trees of jobs are measured: their number of files is the jobs'.
const measureLimit = time.Second

// state tells of the state directory, if there is one.
func (c *collector) state(ctx context.Context) {
	dir := c.host.config.StateDir
	lowest := host.Lowest(dir)
	if free, err := storage.Free(lowest); err != nil {
		c.missing("free space", err)
	} else {
		c.set(metrics.StateFree, float64(free))
	}
	c.set(metrics.StateMinFree, float64(c.host.config.MinFreeDisk.Bytes(host.DiskSize(lowest))))
	if size, known, err := c.host.caches.Size(); err != nil {
		c.missing("caches", err)
	} else if known {
		c.set(metrics.StateCache, float64(size))
	}
	for name, f := range map[string]*metrics.Family{statedir.Downloads: metrics.StateDownloads, statedir.Trash: metrics.StateTrash} {
		limit, cancel := context.WithTimeout(ctx, measureLimit)
		size, err := storage.Usage(limit, filepath.Join(dir, name))
		late := limit.Err() != nil
		cancel()
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			c.set(f, float64(size))
		case !late: // else there is much, which is no reason for a warning each minute
			c.missing(strings.TrimPrefix(name, "."), err)
		}
	}
}

func (c *collector) doctor(ctx context.Context) {
	findings, err := c.host.Doctor.Examine(ctx, "")
	if err != nil {
		c.missing("the doctor's findings", err)
		return
	}
	count := map[doctor.State]float64{}
	for _, f := range findings {
		count[f.State]++
	}
	c.set(metrics.DoctorProblems, count[doctor.Warning], string(doctor.Warning))
	c.set(metrics.DoctorProblems, count[doctor.Bad], string(doctor.Bad))
}
