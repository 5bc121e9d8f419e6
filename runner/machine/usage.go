package machine

import (
	"fmt"

	"nspawn-runner/runner/limits"
)

// Usage returns what a job's main machine has used so far, and its record.
func (s Store) Usage(job string) (Record, limits.Usage, error) {
	record, err := s.RecordOf(job, Main)
	if err != nil {
		return record, limits.Usage{}, err
	}
	usage, err := limits.UsageOf(record.Cgroup, record.Age())
	if err != nil {
		return record, usage, fmt.Errorf("machine %s: %w", Name(record.ID), err)
	}
	return record, usage, nil
}

// MachineUsage is what one machine of a job has used so far.
type MachineUsage struct {
	Record
	limits.Usage
}

// UsageOfAll returns what the machines of a job have used so far, as far as it is known. main is the
// record of its main machine.
func (s Store) UsageOfAll(main Record) (all []MachineUsage) {
	for _, r := range append([]Record{main}, s.beside(main)...) {
		if r.Cgroup == "" {
			continue // it has not come up
		}
		if usage, err := limits.UsageOf(r.Cgroup, r.Age()); err == nil {
			all = append(all, MachineUsage{r, usage})
		}
	}
	return all
}

// UsageBeside returns lines about what the services of a job have used so far. main is the record of its
// main machine.
func (s Store) UsageBeside(main Record) (lines []string) {
	for _, r := range s.beside(main) {
		if usage, err := limits.UsageOf(r.Cgroup, r.Age()); err == nil && r.Service != "" {
			lines = append(lines, usage.Of("service "+r.Service))
		}
	}
	return lines
}
