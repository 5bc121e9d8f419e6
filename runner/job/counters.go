package job

import (
	"context"
	"path/filepath"

	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
	"nspawn-runner/runner/statedir"
)

// foldCounters folds the records of counters if they have become large.
func (d *Driver) foldCounters(ctx context.Context) {
	c := counters(d.Machines)
	if d.Unread != nil || !c.IsLarge() {
		return
	}
	if images, err := d.Images.List(); err == nil {
		_, _, _ = c.Fold(ctx, metrics.Kept, imageNames(images))
	}
}

func imageNames(images []image.Image) (names []string) {
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names
}

// Counted returns what stages and maintenances have counted. broken is an error because of which some counts are
// lost.
func (d *Driver) Counted(ctx context.Context) (numbers []metrics.Number, broken error, err error) {
	images, err := d.Images.List()
	if err != nil {
		return nil, nil, err
	}
	return counters(d.Machines).Fold(ctx, metrics.Kept, imageNames(images))
}

// Count adds samples that belong to no stage.
func (d *Driver) Count(samples ...metrics.Sample) { _ = counters(d.Machines).Record(samples...) }

// counters returns the counters in the state directory of machines. The configuration may name another state
// directory by now.
func counters(machines machine.Store) metrics.Store {
	return metrics.Store{Dir: filepath.Join(filepath.Dir(machines.Dir), statedir.Metrics)}
}
