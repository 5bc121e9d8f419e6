package job

import (
	"time"

	"nspawn-runner/runner/age"
	"nspawn-runner/runner/image"
)

// warnOfAge writes a warning to the job's log if an image was not maintained for longer than limit.
// The job runs all the same.
func (d *Driver) warnOfAge(name string, generation image.Generation, limit time.Duration) {
	record, err := d.Images.Record(generation)
	if err == nil && record.Stale(limit) {
		d.Note("warning: image %s was maintained %s (max_age %s)", name, age.Ago(record.LastMaintained()), age.Days(limit))
	}
}
