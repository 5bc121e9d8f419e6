package job

import (
	"context"
	"path/filepath"

	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
	"nspawn-runner/runner/statedir"
)

// foldCounters folds what was counted, if nothing else has done that for long.
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

// Counted returns what stages and maintenances counted. broken says why some of it is lost.
func (d *Driver) Counted(ctx context.Context) (numbers []metrics.Number, broken error, err error) {
	images, err := d.Images.List()
	if err != nil {
		return nil, nil, err
	}
	return counters(d.Machines).Fold(ctx, metrics.Kept, imageNames(images))
}

// Count counts something that is no stage's.
func (d *Driver) Count(samples ...metrics.Sample) { _ = counters(d.Machines).Record(samples...) }

// counters are those of the state directory of some machines: the configuration may name
// another one by now.
func counters(machines machine.Store) metrics.Store {
	return metrics.Store{Dir: filepath.Join(filepath.Dir(machines.Dir), statedir.Metrics)}
}
