package machine

import (
	"path/filepath"
	"slices"
)

// Standing is a machine with what it is doing.
type Standing struct {
	Record
	// Now is starting, running, stopping, or leftover: one that nobody will remove but
	// Collect.
	Now string
}

// Standings lists all machines with what they are doing.
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
		now := r.State()
		switch {
		case slices.ContainsFunc(abandoned, func(m abandonedMachine) bool { return m.id == r.ID }):
			now = "leftover"
		case exists(filepath.Join(s.dir(r.ID), stopping)), now == "dead":
			// A dead one waits for its cleanup, which says what became of it.
			now = "stopping"
		}
		all = append(all, Standing{r, now})
	}
	return all, nil
}
