package debian

import (
	"context"
	"os/exec"
	"strings"
)

// anyAge has apt take Release files whose time is over.
const anyAge = `Acquire::Check-Valid-Until "false"`

// aptExceptions are the host's exceptions from apt's checks of a mirror's age.
// A host that has them uses a mirror that stands still, and then neither a bootstrap nor
// apt in the image does without them.
func aptExceptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil // a host without apt
	}
	var exceptions []string
	for line := range strings.Lines(string(out)) {
		option := strings.TrimRight(line, ";\n")
		if option == anyAge || option == `Acquire::Check-Date "false"` {
			exceptions = append(exceptions, option)
		}
	}
	return exceptions
}
