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
	g := gauges{host: h}
	g.counted(ctx)
	g.build(ctx)
	g.machines()
	g.images()
	g.state(ctx)
	g.doctor(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var text bytes.Buffer
	err := metrics.Write(&text, metrics.Families, g.numbers)
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

// gauges collects what is counted, and what is so at the moment.
type gauges struct {
	host    *Host
	numbers []metrics.Number
}

func (g *gauges) set(f *metrics.Family, value float64, labels ...string) {
	g.numbers = append(g.numbers, metrics.Number{Family: f.Name, Labels: labels, Value: value})
}

// missing notes why a number is missing.
func (g *gauges) missing(what string, err error) {
	g.host.note("warning: metrics without %s: %v", what, err)
}

// counted takes what stages and maintenances counted. What keeps it from that, such as a broken
// disk, is most often what the other numbers tell of.
func (g *gauges) counted(ctx context.Context) {
	numbers, broken, err := g.host.Jobs.Counted(ctx)
	if broken != nil {
		g.host.note("warning: %v", broken)
	}
	if err != nil {
		g.missing("counters", err)
		return
	}
	g.numbers = numbers
}

func (g *gauges) build(ctx context.Context) {
	systemd, kernel := doctor.Versions(ctx)
	g.set(metrics.BuildInfo, 1, Version, systemd, kernel)
}

// machines counts all kinds of machines, so that a kind of which there are none is zero.
func (g *gauges) machines() {
	all, err := g.host.machines.Standings()
	if err != nil {
		g.missing("machines", err)
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
			g.set(metrics.Machines, count[[2]string{state, kind}], state, kind)
		}
	}
}

// images tells of images that have a chroot.
func (g *gauges) images() {
	all, err := g.host.images.List()
	if err != nil {
		g.missing("images", err)
		return
	}
	for _, i := range all {
		if !i.Exists {
			continue
		}
		if err := g.image(i.Name); err != nil {
			g.missing("image "+i.Name, err)
		}
	}
}

func (g *gauges) image(name string) error {
	store := g.host.images
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
	g.set(metrics.ImageInfo, 1, name, filepath.Base(current.Name), record.Suite)
	g.set(metrics.ImageGenerations, float64(len(generations)), name)
	for f, at := range map[*metrics.Family]time.Time{metrics.ImageBuilt: record.Built, metrics.MaintenanceSuccess: record.LastMaintained()} {
		if !at.IsZero() {
			g.set(f, float64(at.Unix()), name)
		}
	}
	if record.Bytes > 0 { // generations of older programs did not note it; counting takes seconds
		g.set(metrics.ImageSize, float64(record.Bytes), name)
	}
	return nil
}

// measureLimit bounds how long trees of jobs are measured: their number of files is the jobs'.
const measureLimit = time.Second

// state tells of the state directory, if there is one.
func (g *gauges) state(ctx context.Context) {
	dir := g.host.config.StateDir
	lowest := host.Lowest(dir)
	if free, err := storage.Free(lowest); err != nil {
		g.missing("free space", err)
	} else {
		g.set(metrics.StateFree, float64(free))
	}
	g.set(metrics.StateMinFree, float64(g.host.config.MinFreeDisk.Bytes(host.DiskSize(lowest))))
	if size, known, err := g.host.caches.Size(); err != nil {
		g.missing("caches", err)
	} else if known {
		g.set(metrics.StateCache, float64(size))
	}
	for name, f := range map[string]*metrics.Family{statedir.Downloads: metrics.StateDownloads, statedir.Trash: metrics.StateTrash} {
		limit, cancel := context.WithTimeout(ctx, measureLimit)
		size, err := storage.Usage(limit, filepath.Join(dir, name))
		cancel()
		switch {
		case err == nil || os.IsNotExist(err):
			g.set(f, float64(size))
		case limit.Err() == nil: // else there is much, which is no reason for a warning each minute
			g.missing(strings.TrimPrefix(name, "."), err)
		}
	}
}

func (g *gauges) doctor(ctx context.Context) {
	findings, err := g.host.Doctor.Examine(ctx, "")
	if err != nil {
		g.missing("the doctor's findings", err)
		return
	}
	count := map[doctor.State]float64{}
	for _, f := range findings {
		count[f.State]++
	}
	g.set(metrics.DoctorProblems, count[doctor.Warning], string(doctor.Warning))
	g.set(metrics.DoctorProblems, count[doctor.Bad], string(doctor.Bad))
}
