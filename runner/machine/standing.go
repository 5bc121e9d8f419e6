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
	// Since is what it has used so far, Now what it uses at the moment.
	Since limits.Usage
	Now   limits.Current
	// Disk is how much of its disk_max it has used, in percent. It is 0 if there is no limit, or the
	// use is not known.
	Disk uint64
}

// UseOf returns what a machine uses. up is false if nothing is known, such as before the machine is up.
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
