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
		return cmp.Or(cmp.Compare(a.Job, b.Job), -cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// rank is higher for main machines.
func rank(m Standing) int {
	if m.Role == Main {
		return 1
	}
	return 0
}

// UseNow reads what a machine has used, what it uses at the moment, and how much of its
// disk_max, in percent; that is 0 without one, or where it is not known. up is false for a
// machine of which nothing is known, as before it has come up.
func (s Store) UseNow(ctx context.Context, r Record) (used limits.Usage, now limits.Current, disk uint64, up bool) {
	if r.Cgroup == "" {
		return used, now, 0, false
	}
	used, err := limits.UsageOf(r.Cgroup, r.Age())
	if err != nil {
		return used, now, 0, false
	}
	if bytes, files, known := diskUse(ctx, s.dir(r.ID), r); known {
		disk = max(bytes, files)
	}
	return used, limits.CurrentOf(r.Cgroup), disk, true
}
