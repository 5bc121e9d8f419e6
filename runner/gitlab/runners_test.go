package gitlab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheBlockForConfigTOMLIsReadBackAsItIsMeant(t *testing.T) {
	block := TOML(Registration{Driver: `/opt/a "b"/nspawn-runner`, Args: []string{"--config", "/x.yaml"}, Name: "me"})
	all, err := ParseRunners([]byte("concurrent = 4\n" + block))
	if err != nil || all.Concurrent != 4 || len(all.Runners) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	r := all.Runners[0]
	if r.Name != "me" || r.Executor != "custom" || r.GracefulKill != 30*time.Second || len(r.Stages()) != 4 {
		t.Errorf("%+v", r)
	}
	for _, stage := range r.Stages() {
		if stage.Exec != `/opt/a "b"/nspawn-runner` || !slices.Equal(stage.Args, []string{"--config", "/x.yaml", stage.Command}) {
			t.Errorf("%+v", stage)
		}
		if (stage.Timeout > 0) == (stage.Name == "run") {
			t.Errorf("timeout: %+v", stage)
		}
	}
}

func TestAConfigTOMLThatCannotBeReadIsAnErrorWithItsLine(t *testing.T) {
	_, err := ParseRunners([]byte("concurrent = 1\n[[runners]\n"))
	if err == nil || !strings.Contains(err.Error(), "line ") {
		t.Errorf("%v", err)
	}
}
