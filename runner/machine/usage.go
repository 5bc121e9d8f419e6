package machine

import (
	"fmt"

	"nspawn-runner/runner/limits"
)

// Usage reads what a machine has used up to now, and its record.
func (s Store) Usage(id string) (Record, limits.Usage, error) {
	record, err := readRecord(s.dir(id))
	if err != nil {
		return record, limits.Usage{}, err
	}
	usage, err := limits.UsageOf(record.Cgroup, record.Age())
	if err != nil {
		return record, usage, fmt.Errorf("machine %s: %w", Name(id), err)
	}
	return record, usage, nil
}
