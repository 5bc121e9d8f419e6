package job

import (
	"time"

	"nspawn-runner/runner/age"
	"nspawn-runner/runner/image"
)

// warnOfAge says it in the job's log when nobody maintained an image for too
// long. The job runs all the same.
func (d *Driver) warnOfAge(name string, generation image.Generation, limit time.Duration) {
	record, err := d.Images.Record(generation)
	if err == nil && record.Stale(limit) {
		d.Note("warning: image %s was maintained %s (max_age %s)", name, age.Ago(record.LastMaintained()), age.Days(limit))
	}
}
