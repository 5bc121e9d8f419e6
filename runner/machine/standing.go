package machine

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"

	"nspawn-runner/runner/limits"
)

// Standing is a machine and what it does at the moment.
type Standing struct {
	Record
	// Now is starting, running, stopping or leftover. Only Collect will remove a leftover.
	Now string
	// Stage is the stage of the job: prepare, services (while prepare waits for them), a sub-stage
	// such as build_script, or cleanup. It is "" between stages.
	Stage string
}

// Standings lists all machines and what they do. The machines of a job follow each other, the main
// machine first.
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
		return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// rank sorts main machines before others.
func rank(m Standing) int {
	if m.Role == Main {
		return 0
	}
	return 1
}

// UseNow returns what a machine has used, what it uses at the moment, and how much of its disk_max it has
// used, in percent. disk is 0 if there is no limit, or its use is not known. up is false if nothing is
// known, such as before the machine is up.
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
