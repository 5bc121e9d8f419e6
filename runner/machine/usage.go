package machine

import (
	"fmt"

	"nspawn-runner/runner/limits"
)

// Usage reads what a job's main machine has used up to now, and its record.
func (s Store) Usage(job string) (Record, limits.Usage, error) {
	record, err := s.mainOf(job)
	if err != nil {
		return record, limits.Usage{}, err
	}
	usage, err := limits.UsageOf(record.Cgroup, record.Age())
	if err != nil {
		return record, usage, fmt.Errorf("machine %s: %w", Name(record.ID), err)
	}
	return record, usage, nil
}
