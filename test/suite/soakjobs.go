package suite

import (
	"cmp"
	"context"
	"errors"
)

// manyJobs is a pattern for the test that soaks a host in jobs. It is one of the
// integration tests, with few jobs.
const manyJobs = "^TestManyJobsOfAllEnds"

// SoakJobs plays a number of jobs, "" for 1000, on each backend in a lab of its own:
// some of them are killed, canceled, or out of time. Nothing may be left, and nothing
// may grow with their number.
func SoakJobs(number string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		var failed error
		for _, backend := range []string{"overlay", "btrfs", "tmpfs"} {
			jobs := "NSPAWN_RUNNER_JOBS=" + cmp.Or(number, "1000")
			failed = errors.Join(failed, Lab("", manyJobs+"/^"+backend+"$", jobs)(s, ctx), ctx.Err())
		}
		return failed
	}
}
