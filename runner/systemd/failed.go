package systemd

import (
	"context"
	"strings"
)

// FailedService is a service that failed.
type FailedService struct {
	// Name is its unit's.
	Name string
	Exit
}

// mostFailed bounds how many failed services are looked at.
const mostFailed = 20

// FailedServices lists the services that failed, and how. What systemd starts again has not
// failed as long as it does.
func (b *Bus) FailedServices(ctx context.Context) (all []FailedService, err error) {
	units, err := b.FailedUnits(ctx)
	if err != nil {
		return nil, err
	}
	for _, unit := range units {
		if !strings.HasSuffix(unit.Name, ".service") {
			continue
		}
		exit, _, err := b.exit(ctx, unitPath(unit.Name))
		if err != nil {
			return all, err
		}
		if all = append(all, FailedService{unit.Name, exit}); len(all) == mostFailed {
			break
		}
	}
	return all, nil
}
