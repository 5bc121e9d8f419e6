package machine

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"

	"nspawn-runner/runner/limits"
)

// Standing is a machine with what it is doing.
type Standing struct {
	Record
	// Now is starting, running, stopping, or leftover: one that nobody will remove but
	// Collect.
	Now string
	// Stage is what gitlab-runner has the machine do, "" for nothing: prepare, a sub-stage
	// such as build_script, services while prepare waits for them, cleanup.
	Stage string
}

// Standings lists all machines with what they are doing: those of a job beside each other, its
// main machine first.
func (s Store) Standings() ([]Standing, error) {
	records, err := s.Records()
	if err != nil {
		return nil, err
	}
	abandoned, err := s.allAbandoned()
	if err != nil {
		return nil, err
	}
	var all []Standing
	for _, r := range records {
		m := Standing{Record: r, Now: r.State()}
		switch {
		case slices.ContainsFunc(abandoned, func(m abandonedMachine) bool { return m.id == r.ID }):
			m.Now = "leftover"
		case exists(filepath.Join(s.dir(r.ID), stopping)):
			m.Now, m.Stage = "stopping", "cleanup"
		case m.Now == "dead": // it waits for its cleanup
			m.Now = "stopping"
		case m.Now == "starting":
			m.Stage = "prepare"
		case r.Role == Main:
			m.Stage = s.stage(r.Job)
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Standing) int {
		switch {
		case a.Job != b.Job:
			return cmp.Compare(a.Job, b.Job)
		case a.Role == Main:
			return -1
		case b.Role == Main:
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return all, nil
}

// Use is what a machine uses.
type Use struct {
	// Since is from its beginning on, Now at the moment.
	Since limits.Usage
	Now   limits.Current
	// Disk is how much of its disk_max, in percent; 0 without one, or where it is not known.
	Disk uint64
}

// UseOf reads what a machine uses. up is false for one of which nothing is known, as before it
// has come up.
func (s Store) UseOf(ctx context.Context, r Record) (use Use, up bool) {
	if r.Cgroup == "" {
		return use, false
	}
	var err error
	if use.Since, err = limits.UsageOf(r.Cgroup, r.Age()); err != nil {
		return use, false
	}
	use.Now = limits.CurrentOf(r.Cgroup)
	if bytes, files, known := diskUse(ctx, s.dir(r.ID), r); known {
		use.Disk = max(bytes, files)
	}
	return use, true
}
