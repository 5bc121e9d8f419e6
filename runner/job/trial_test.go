package job

import (
	"io"
	"strings"
	"testing"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
)

func TestWhereSystemdDoesNotRunAGenerationIsNotTestedAndThatIsSaidOnce(t *testing.T) {
	if host.RunsSystemd() {
		t.Skip("systemd runs this host")
	}
	d, said := newDriver(t, "", nil)
	for range 2 {
		if err := d.TryGeneration(t.Context(), "sid", image.Generation{}, io.Discard); err != nil {
			t.Error(err)
		}
	}
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "nothing new is tested") {
		t.Errorf("%q", got)
	}
}
