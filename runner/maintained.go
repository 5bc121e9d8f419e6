package runner

import (
	"fmt"

	"nspawn-runner/runner/image"
	"nspawn-runner/runner/metrics"
)

// Failed is the result of a maintenance that came to no image.Outcome.
const Failed image.Outcome = "failed"

// Maintained is what became of an image in a maintenance.
type Maintained struct {
	Image      string        `json:"-"`
	Result     image.Outcome `json:"result"`
	Generation string        `json:"generation,omitempty"` // the one that is current now
	Seconds    float64       `json:"seconds"`
	Error      string        `json:"error,omitempty"`

	err error
}

// samples are what metrics count of it. That an image was fresh says nothing new.
func (m Maintained) samples() []metrics.Sample {
	ok := 1.
	if m.err != nil {
		ok = 0
	}
	all := []metrics.Sample{metrics.MaintenanceResult.Sample(ok, m.Image)}
	if m.Result != image.Fresh {
		all = append(all, metrics.MaintenanceDuration.Sample(m.Seconds, m.Image))
	}
	return all
}

// Err is why it failed, or nil.
func (m Maintained) Err() error { return m.err }

// String is a line for people.
func (m Maintained) String() string {
	switch m.Result {
	case image.Published:
		return fmt.Sprintf("%s: published, generation %s", m.Image, m.Generation)
	case image.Unchanged:
		return fmt.Sprintf("%s: up to date, generation %s stays", m.Image, m.Generation)
	case image.Fresh:
		return fmt.Sprintf("%s: maintained not long ago, generation %s stays", m.Image, m.Generation)
	}
	return m.Error
}
