package integration

import (
	"os/exec"
	"sync"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// restarts are what an administrator, or an upgrade of systemd or of dbus, does to
// a host while jobs run.
var restarts = []string{
	"systemctl daemon-reload", "systemctl daemon-reexec",
	"systemctl restart systemd-machined.service", "systemctl restart dbus.service",
}

// restarted is a gitlab-runner on whose host something is restarted three times in
// each of prepare, build_script and cleanup, a time after they began and that time
// after each other. What is being restarted must be waited for.
func (h *host) restarted(t *testing.T, command string, age time.Duration) (gitlab.Runner, *sync.WaitGroup) {
	t.Helper()
	var restarting sync.WaitGroup
	runner := h.runner()
	runner.RetryPause = time.Second // the real one's is longer, this one suffices
	runner.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
		if p.SubStage != "build_script" && (p.Stage != "prepare" && p.Stage != "cleanup" || p.Try > 1) {
			return
		}
		restarting.Go(func() {
			for range 3 {
				time.Sleep(age) // the moment is the point
				// Without the reset systemd refuses more than five starts in ten seconds; and
				// systemctl fails if it asks in the middle of another job's restart.
				again := "until systemctl reset-failed && " + command + "; do :; done"
				if out, err := exec.Command("timeout", "30", "sh", "-c", again).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s", command, err, out)
				}
			}
		})
	}
	return runner, &restarting
}

func TestWhenTheHostsSystemdIsRestartedJobsGoOnOrFailAsTheSystem(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	for _, command := range restarts {
		t.Run(command, func(t *testing.T) {
			for _, age := range []time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond} {
				runner, restarting := h.restarted(t, command, age)
				job := stopJob()
				job.Script = []string{"sleep 0.5; echo built"}
				start := time.Now()
				r := h.playOn(t, runner, job)
				took := time.Since(start)
				restarting.Wait()
				// A prepare may fail, and be tried again. A script has nothing to do with the
				// host's systemd, and nobody would call cleanup again.
				built := r.Last("build_script")
				if r.Status != gitlab.Success && (r.Reason != gitlab.SystemFailure || built != nil) || took > time.Minute {
					t.Errorf("after %v each: %s %s in %v: %s", age, r.Status, r.Reason, took, r.Log)
				}
				if c := r.Last("cleanup"); c.ExitStatus != 0 {
					t.Errorf("after %v each: cleanup: %+v", age, c)
				}
				h.checkNothingLeft(t)
				t.Logf("after %v each: %s in %v, %d calls of the driver", age, r.Status, took, len(r.Stages))
			}
		})
	}
}

func TestOnAHostWhoseBusHangsScriptsGoOnAndAllElseFailsInBoundedTime(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay").impatient(t)
	id := h.prepared(t, "bookworm")
	shell(t, "systemctl kill --signal=STOP dbus.service")
	wakeUp := func() { _ = exec.Command("systemctl", "kill", "--signal=CONT", "dbus.service").Run() }
	defer wakeUp()
	defer time.AfterFunc(90*time.Second, wakeUp).Stop() // or what waits without a limit never ends
	if c := h.run(t, id, "echo works"); c.stdout != "works\n" {
		t.Errorf("run: %+v", c)
	}
	var all sync.WaitGroup
	for _, args := range [][]string{{"prepare", "--id", newID(), "bookworm"}, {"cleanup", "--id", id}, {"gc"}} {
		all.Go(func() {
			start := time.Now()
			if c := h.drive(t, args...); c.status == 0 || time.Since(start) > 30*time.Second {
				t.Errorf("%s: after %v: %+v", args[0], time.Since(start), c)
			} else {
				wantLog(t, c.stderr, "the host's system bus: its D-Bus does not answer")
			}
		})
	}
	all.Wait()
}

func TestAMachineStartsThoughMachinedStillKnowsAnEarlierOneOfItsName(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	id := newID()
	// As if systemd-machined had not heard of the end yet: a unit that goes on without the first process.
	t.Cleanup(func() { shell(t, "systemctl stop nspawn-test-earlier") })
	shell(t, `systemd-run --quiet --collect --unit=nspawn-test-earlier --service-type=exec sh -c 'sleep 1001 & echo $! >/run/nspawn-test-earlier; sleep 1002'
		until [ -s /run/nspawn-test-earlier ]; do sleep 0.01; done
		busctl call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager RegisterMachine sayssus \
			run-`+id+` 0 test container $(cat /run/nspawn-test-earlier) /
		kill $(cat /run/nspawn-test-earlier); rm /run/nspawn-test-earlier`)
	if c := h.drive(t, "prepare", "--id", id, "--allow-image=*", "bookworm"); c.status != 0 {
		t.Fatalf("prepare: %+v", c)
	}
	if c := h.run(t, id, "echo works"); c.stdout != "works\n" {
		t.Errorf("run: %+v", c)
	}
	if c := h.drive(t, "cleanup", "--id", id); c.status != 0 {
		t.Errorf("cleanup: %+v", c)
	}
}
