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
	usage, err := s.usageOf(record)
	if err != nil {
		return record, usage, fmt.Errorf("machine %s: %w", Name(record.ID), err)
	}
	return record, usage, nil
}

// usageOf returns what a machine has used so far, or had used when its program ended.
func (s Store) usageOf(r Record) (limits.Usage, error) {
	if end, ended := s.ended(r); ended && end.Usage != nil {
		return *end.Usage, nil
	}
	return limits.UsageOf(r.Cgroup, r.Age())
}

// UsageOfAll returns what the machines of a job have used so far, as far as it is known. main is the
// record of its main machine.
func (s Store) UsageOfAll(main Record) (all []MachineUsage) {
	for _, r := range append([]Record{main}, s.beside(main)...) {
		if r.Cgroup == "" {
			continue // it has not come up
		}
		if usage, err := s.usageOf(r); err == nil {
			all = append(all, MachineUsage{r.ID, r.Image, r.Service, !r.HasInit(), usage})
		}
	}
	return all
}

// UsageBeside returns lines about what the services of a job have used so far. main is the record of its
// main machine.
func (s Store) UsageBeside(main Record) (lines []string) {
	for _, used := range s.UsageOfAll(main) {
		if used.Service != "" {
			lines = append(lines, used.Of("service "+used.Service))
		}
	}
	return lines
}
