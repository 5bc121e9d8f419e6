package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"nspawn-runner/test/gitlab"
)

// Commands that kill a part of a machine, %d its id. They fail when it is not there.
const (
	killNspawn = "systemctl kill --kill-whom=main --signal=KILL nspawn-runner-%d.service"
	killInit   = "machinectl kill --kill-whom=leader --signal=KILL run-%d"
	killPasta  = "echo 1 > /sys/fs/cgroup/machine.slice/machine-ci.slice/nspawn-runner-%d.service/network/cgroup.kill"
)

// lose executes a command that kills a part of a job's machine, and says whether
// that was there.
func lose(command string, id int64) bool {
	return exec.Command("sh", "-c", fmt.Sprintf(command, id)).Run() == nil
}

func TestAJobThatLosesAPartOfItsMachineInAnyStageLeavesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	for _, part := range []struct {
		name, command string
		vital         bool // no job goes on without
	}{{"nspawn", killNspawn, true}, {"init", killInit, true}, {"pasta", killPasta, false}} {
		for _, stage := range []string{"prepare", "build_script", "cleanup"} {
			t.Run(part.name+" in "+stage, func(t *testing.T) {
				job := stopJob()
				job.Script = []string{"sleep 1; echo built"}
				if part.vital && stage == "build_script" {
					job.Script = []string{"sleep 100"} // which it does not survive
				}
				var killing sync.WaitGroup
				runner := h.runner()
				runner.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
					switch {
					case p.Stage == stage && stage == "prepare" && p.Try == 1:
						killing.Go(func() { await(t, "a part to kill", func() bool { return lose(part.command, job.ID) }) })
					case p.SubStage == stage || p.Stage == stage && stage == "cleanup":
						killing.Go(func() { lose(part.command, job.ID) }) // a cleanup may have been faster
					}
				}
				r := h.playOn(t, runner, job)
				killing.Wait()
				failed := part.vital && stage == "build_script"
				if failed != (r.Reason == gitlab.SystemFailure) || !failed && r.Status != gitlab.Success {
					t.Errorf("%s %s: %s", r.Status, r.Reason, r.Log)
				}
				if again := strings.Count(strings.Join(r.Names(), " "), "prepare ") > 1; part.vital && stage == "prepare" && !again {
					t.Errorf("prepare did not fail: %v", r.Names())
				}
				if c := r.Last("cleanup"); c.ExitStatus != 0 {
					t.Errorf("cleanup: %+v", c)
				}
				h.checkNothingLeft(t)
			})
		}
	}
}
