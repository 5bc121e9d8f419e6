package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// What follows in a job that has everything, after prepare.
const (
	toSources = "config prepare prepare_script get_sources"
	toScript  = toSources + " restore_cache build_script"
	saved     = " after_script archive_cache upload_artifacts_on_success"
	rescued   = " after_script archive_cache_on_failure upload_artifacts_on_failure"
	end       = " cleanup_file_variables cleanup"
	noPrepare = "config prepare cleanup"
)

// event is something that happens to a job in a stage, or sub-stage.
type event func(c *contract, stage string)

// contract is a gitlab-runner with the driver of which a test knows at each
// moment what it does.
type contract struct {
	gitlab.Runner
	dir string
	id  int64
}

// wrap puts a line of shell before each call of the driver in a stage; "$@" is the
// call. No file: one that was just written may be busy when it is executed.
func (c *contract) wrap(stage, line string) {
	wrapper := fmt.Sprintf("name=${4#gitlab-}\n[ $name != run ] || name=${!#}\nif [ $name = %s ]; then %s\nfi\nexec \"$@\"", stage, line)
	for _, command := range []*gitlab.Command{&c.Driver.Config, &c.Driver.Prepare, &c.Driver.Run, &c.Driver.Cleanup} {
		command.Args = append([]string{"-c", wrapper, "wrapper", command.Exec}, command.Args...)
		command.Exec = "/bin/bash"
	}
}

// at does something as soon as the log has a line in a stage: the driver's marks
// are lines, too. Once, or each time.
func (c *contract) at(stage, line string, each bool, do func(*gitlab.Running)) {
	var once sync.Once
	before := c.OnLine
	c.OnLine = func(r *gitlab.Running, got string) {
		if before != nil {
			before(r, got)
		}
		p := r.Process()
		switch {
		case got != line || p == nil || p.Stage != stage && p.SubStage != stage:
		case each:
			do(r)
		default:
			once.Do(func() { do(r) })
		}
	}
}

// wellUnderWay is the mark at which a stage is.
func wellUnderWay(stage string) string {
	if stage == "prepare" {
		return "mark: machine: control group of its network made"
	}
	return "mark: systemd: start of a script asked for"
}

// The events.

func machineDies(c *contract, stage string) { c.machineDies(stage, false) }

// serviceDies is the machine of a service that dies in the stage.
func serviceDies(c *contract, stage string) {
	c.at(stage, wellUnderWay(stage), false, func(*gitlab.Running) {
		_ = exec.Command("systemctl", "kill", "--signal=KILL", fmt.Sprintf("nspawn-runner-%d-service1.service", c.id)).Run()
	})
}

func machineDiesEachTime(c *contract, stage string) { c.machineDies(stage, true) }

func (c *contract) machineDies(stage string, each bool) {
	c.at(stage, wellUnderWay(stage), each, func(*gitlab.Running) {
		_ = exec.Command("systemctl", "kill", "--signal=KILL", fmt.Sprintf("nspawn-runner-%d.service", c.id)).Run()
	})
}

// machineIsDead is a machine that died just before the stage.
func machineIsDead(c *contract, stage string) {
	unit := fmt.Sprintf("nspawn-runner-%d.service", c.id)
	c.wrap(stage, "systemctl kill --signal=KILL "+unit+"; while systemctl --quiet is-active "+unit+"; do :; done")
}

func exits77(c *contract, stage string) { c.wrap(stage, `"$@"; exit 77`) }

func driverDies(c *contract, stage string) {
	c.wrap(stage, "[ -e "+c.dir+"/once ] || { touch "+c.dir+"/once; "+dying(stage)+"; }")
}

func driverDiesEachTime(c *contract, stage string) { c.wrap(stage, dying(stage)) }

// dying has the driver die in the middle of a stage.
func dying(stage string) string {
	return "unset NSPAWN_RUNNER_MARKS; export '" + killAt(strings.TrimPrefix(wellUnderWay(stage), "mark: ")) + "'"
}

// canceledDriverDies is a driver that is killed while it stops its script, and
// canceledDriverDiesLate one that is when it has.
func canceledDriverDies(c *contract, stage string) { c.canceledAt(stage, "run: no more waiting") }

func canceledDriverDiesLate(c *contract, stage string) { c.canceledAt(stage, "run: script at its end") }

func (c *contract) canceledAt(stage, mark string) {
	c.wrap(stage, "unset NSPAWN_RUNNER_MARKS; export '"+killAt(mark)+"'")
	c.at(stage, "ready", false, (*gitlab.Running).Cancel)
}

func driverIsTerminated(c *contract, stage string) {
	c.at(stage, wellUnderWay(stage), false, func(r *gitlab.Running) { _ = r.Process().SignalGroup(syscall.SIGTERM) })
}

func canceled(c *contract, stage string) {
	c.at(stage, wellUnderWay(stage), false, (*gitlab.Running).Cancel)
}

func aborted(c *contract, stage string) {
	c.at(stage, wellUnderWay(stage), false, (*gitlab.Running).Abort)
}

func runnerStops(c *contract, stage string) {
	c.at(stage, wellUnderWay(stage), false, (*gitlab.Running).Stop)
}

func serviceStops(c *contract, stage string) {
	c.at(stage, wellUnderWay(stage), false, func(r *gitlab.Running) {
		_ = r.Process().SignalGroup(syscall.SIGTERM)
		r.Stop()
	})
}

func hasASecond(c *contract, stage string) { c.Driver.Prepare.Timeout = time.Second }

func responseMissing(c *contract, stage string) {
	c.Response = func([]byte) []byte { return nil }
}

func responseTruncated(c *contract, stage string) {
	c.Response = func(whole []byte) []byte { return whole[:len(whole)/2] }
}

func responseHostile(c *contract, stage string) {
	c.Response = func(whole []byte) []byte {
		return []byte(strings.Replace(string(whole), fmt.Sprintf(`"id":%d`, c.id), `"id":"../../x"`, 1))
	}
}

func responseGoesAway(c *contract, stage string) { c.wrap(stage, `rm "$JOB_RESPONSE_FILE"`) }

func TestTheContractWithGitlabRunnerIsKeptWhateverHappens(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "uploads", "printf '#!/bin/sh\\n[ $1 != artifacts-uploader ] || exit 5\\n' >usr/bin/gitlab-runner && chmod 755 usr/bin/gitlab-runner")

	h.addImage(t, "hangs", hang)
	h.configure(t, "services: {'any:*': bookworm}\n")
	t.Cleanup(func() { h.configure(t, "") })
	// A driver is killed while it begins to make the machine of a service.
	t.Cleanup(func() { h.collectNameless(t) })

	type job = gitlab.Job
	script := func(lines ...string) func(*job) { return func(j *job) { j.Script = lines } }
	after := func(lines ...string) func(*job) { return func(j *job) { j.AfterScript = lines } }
	scripts := func(line, after string) func(*job) {
		return func(j *job) { j.Script, j.AfterScript = []string{line}, []string{after} }
	}
	with := func(key, value string, more func(*job)) func(*job) {
		return func(j *job) { j.Variables = []gitlab.Variable{{Key: key, Value: value}}; more(j) }
	}
	served := func(more func(*job), names ...string) func(*job) {
		return func(j *job) {
			for _, name := range names {
				j.Services = append(j.Services, gitlab.Image{Name: name})
			}
			if more != nil {
				more(j)
			}
		}
	}
	noSources := func(j *job) { j.Git.URL = "file:///nowhere" }
	const (
		success, failed, canceledJob = gitlab.Success, gitlab.Failed, gitlab.Canceled
		build, system, late          = gitlab.ScriptFailure, gitlab.SystemFailure, gitlab.Timeout
	)
	for _, row := range []struct {
		job    func(*job)
		stage  string
		event  event
		status gitlab.Status
		reason gitlab.Reason
		code   int
		stages string
		log    string
	}{
		{nil, "", nil, success, "", 0, toScript + saved + end, "Job succeeded"},

		// The job fails in a stage.
		{noSources, "get_sources", nil, failed, build, 128, toSources + end, "'/nowhere' does not appear to be a git repository"},
		{with("GET_SOURCES_ATTEMPTS", "2", noSources), "get_sources", nil, failed, build, 128, toSources + " clear_worktree get_sources" + end, "Retrying in"},
		{script("exit 3"), "build_script", nil, failed, build, 3, toScript + rescued + end, "exit code 3"},
		{after("exit 4"), "after_script", nil, success, "", 0, toScript + saved + end, "after_script failed, but job will continue unaffected: exit code 4"},
		{func(j *job) { j.Image.Name = "uploads" }, "upload_artifacts_on_success", nil, failed, build, 5, toScript + saved + end, "exit code 5"},
		{script("mkdir -p $PWD.tmp/x; mount -t tmpfs x $PWD.tmp/x"), "cleanup_file_variables", nil, success, "", 0, toScript + saved + end, "Job succeeded"},

		// The machine dies in a stage: the system's failure.
		{nil, "prepare", machineDies, success, "", 0, noPrepare + " " + toScript + saved + end, "Will be retried"},
		{nil, "prepare", machineDiesEachTime, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "Will be retried"},
		{nil, "prepare_script", machineIsDead, failed, system, 0, "config prepare prepare_script cleanup", "was killed (signal 9)"},
		{nil, "get_sources", machineIsDead, failed, system, 0, toSources + end, "was killed (signal 9)"},
		{nil, "restore_cache", machineIsDead, failed, system, 0, toSources + " restore_cache" + end, "was killed (signal 9)"},
		{script("sleep 1000"), "build_script", machineDies, failed, system, 0, toScript + rescued + end, "was killed (signal 9)"},
		{after("sleep 1000"), "after_script", machineDies, failed, system, 0, toScript + saved + end, "was killed (signal 9)"},
		{nil, "archive_cache", machineIsDead, failed, system, 0, toScript + saved + end, "was killed (signal 9)"},
		{nil, "upload_artifacts_on_success", machineIsDead, failed, system, 0, toScript + saved + end, "was killed (signal 9)"},
		{nil, "cleanup_file_variables", machineIsDead, success, "", 0, toScript + saved + end, "Job succeeded"},

		// The driver ends as it never should: a failure that nobody knows.
		{nil, "config", exits77, failed, system, 0, "config cleanup config cleanup config cleanup", "unknown Custom executor executable exit code 77"},
		{nil, "prepare", exits77, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "unknown Custom executor executable exit code 77"},
		{nil, "prepare_script", exits77, failed, system, 0, "config prepare prepare_script cleanup", "unknown Custom executor executable exit code 77"},
		{nil, "get_sources", exits77, failed, system, 0, toSources + end, "unknown Custom executor executable exit code 77"},
		{nil, "build_script", exits77, failed, system, 0, toScript + rescued + end, "unknown Custom executor executable exit code 77"},
		{nil, "after_script", exits77, success, "", 0, toScript + saved + end, "unknown Custom executor executable exit code 77"},
		{nil, "cleanup", exits77, success, "", 0, toScript + saved + end, "Job succeeded"},

		// It is killed.
		{nil, "prepare", driverDies, success, "", 0, noPrepare + " " + toScript + saved + end, "signal: killed"},
		{nil, "prepare", driverDiesEachTime, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "signal: killed"},
		{nil, "prepare_script", driverDies, failed, system, 0, "config prepare prepare_script cleanup", "signal: killed"},
		{nil, "get_sources", driverDies, failed, system, 0, toSources + end, "signal: killed"},
		{with("GET_SOURCES_ATTEMPTS", "2", func(*job) {}), "get_sources", driverDies, success, "", 0, toSources + " clear_worktree get_sources restore_cache build_script" + saved + end, "Retrying in"},
		{nil, "restore_cache", driverDies, failed, system, 0, toSources + " restore_cache" + end, "signal: killed"},
		{script("sleep 1000"), "build_script", driverDies, failed, system, 0, toScript + rescued + end, "signal: killed"},
		{after("sleep 1000"), "after_script", driverDies, success, "", 0, toScript + saved + end, "after_script failed"},
		{nil, "archive_cache", driverDies, failed, system, 0, toScript + saved + end, "signal: killed"},
		{nil, "upload_artifacts_on_success", driverDies, failed, system, 0, toScript + saved + end, "signal: killed"},
		{nil, "cleanup_file_variables", driverDies, success, "", 0, toScript + saved + end, "Job succeeded"},

		// It gets a SIGTERM, for one reason or another.
		{nil, "prepare", driverIsTerminated, success, "", 0, noPrepare + " " + toScript + saved + end, "stopped by a signal (terminated)"},
		{script("sleep 1000"), "build_script", driverIsTerminated, failed, system, 0, toScript + rescued + end, "stopped by a signal (terminated)"},
		{after("sleep 1000"), "after_script", driverIsTerminated, success, "", 0, toScript + saved + end, "after_script failed"},
		{nil, "prepare", canceled, canceledJob, "", 0, noPrepare, "canceled"},
		{nil, "get_sources", canceled, canceledJob, "", 0, toSources + " cleanup", "canceled"},
		{script("sleep 1000"), "build_script", canceled, canceledJob, "", 0, toScript + rescued + end, "canceled"},
		{scripts("echo ready; sleep 1000", "echo left: $(pgrep -c sleep)"), "build_script", canceledDriverDies, canceledJob, "", 0, toScript + rescued + end, "left: 0"},
		{scripts("echo ready; sleep 1000", "echo left: $(pgrep -c sleep)"), "build_script", canceledDriverDiesLate, canceledJob, "", 0, toScript + rescued + end, "left: 0"},
		{nil, "after_script", canceled, success, "", 0, toScript + saved + end, "Job succeeded"},
		{nil, "prepare", aborted, canceledJob, "", 0, noPrepare, "canceled"},
		{nil, "prepare_script", aborted, canceledJob, "", 0, "config prepare prepare_script cleanup", "canceled"},
		{script("sleep 1000"), "build_script", aborted, canceledJob, "", 0, toScript + " cleanup", "canceled"},
		{after("sleep 1000"), "after_script", aborted, canceledJob, "", 0, toScript + " after_script cleanup", "canceled"},
		{nil, "prepare", runnerStops, failed, system, 0, noPrepare, "aborted: terminated"},
		{script("sleep 1000"), "build_script", runnerStops, failed, system, 0, toScript + " cleanup", "aborted: terminated"},
		{script("sleep 1000"), "build_script", serviceStops, failed, system, 0, toScript + " cleanup", "aborted: terminated"},

		// It takes too long.
		{func(j *job) { j.Image.Name = "hangs" }, "prepare", hasASecond, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "stopped by a signal (terminated)"},
		{with("RUNNER_SCRIPT_TIMEOUT", "1s", script("sleep 1000")), "build_script", nil, failed, late, 0, toScript + rescued + end, "script timeout exceeded"},
		{with("RUNNER_AFTER_SCRIPT_TIMEOUT", "1s", after("sleep 1000")), "after_script", nil, success, "", 0, toScript + saved + end, "after_script failed"},

		// It has services.
		{served(nil, "any:1", "other/any:1"), "", nil, failed, build, 1, noPrepare, "service other/any:1: no image of this host stands for it"},
		{served(nil, "any:1"), "", nil, success, "", 0, toScript + saved + end, "service any:1: "},
		{served(script("exit 3"), "any:1"), "", nil, failed, build, 3, toScript + rescued + end, "exit code 3"},
		{served(script("sleep 1"), "any:1"), "build_script", serviceDies, success, "", 0, toScript + saved + end, "warning: service any:1: machine run-"},
		{served(script("sleep 1; exit 3"), "any:1"), "build_script", serviceDies, failed, build, 3, toScript + rescued + end, "The last lines of service any:1 (machine run-"},
		{served(nil, "any:1"), "prepare", machineDies, success, "", 0, noPrepare + " " + toScript + saved + end, "Will be retried"},
		{served(nil, "any:1"), "prepare", machineDiesEachTime, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "Will be retried"},
		{served(nil, "any:1"), "prepare", driverDies, success, "", 0, noPrepare + " " + toScript + saved + end, "signal: killed"},
		{served(nil, "any:1"), "prepare", canceled, canceledJob, "", 0, noPrepare, "canceled"},
		{served(nil, "any:1"), "prepare", driverIsTerminated, success, "", 0, noPrepare + " " + toScript + saved + end, "stopped by a signal (terminated)"},
		{served(script("sleep 1000"), "any:1"), "build_script", machineDies, failed, system, 0, toScript + rescued + end, "was killed (signal 9)"},
		{served(script("sleep 1000"), "any:1"), "build_script", driverDies, failed, system, 0, toScript + rescued + end, "signal: killed"},
		{served(script("sleep 1000"), "any:1"), "build_script", aborted, canceledJob, "", 0, toScript + " cleanup", "canceled"},

		// GitLab's word on the job is no good.
		{nil, "", responseMissing, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "no such file or directory"},
		{nil, "", responseTruncated, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "unexpected end of JSON input"},
		{nil, "", responseHostile, failed, system, 0, noPrepare + " " + noPrepare + " " + noPrepare, "job response"},
		{nil, "get_sources", responseGoesAway, failed, system, 0, toSources + end, "no such file or directory"},
	} {
		name := row.stage + " " + fmt.Sprint(row.status, " ", row.reason, " ", row.log)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := job{
				ID: newNumber(), Image: gitlab.Image{Name: "bookworm"}, Script: []string{"echo built"}, AfterScript: []string{"echo after"},
				Cache:     []gitlab.Cache{{Paths: []string{"c"}, When: gitlab.Always}},
				Artifacts: []gitlab.Artifact{{Paths: []string{"a"}, When: gitlab.Always}},
			}
			if row.job != nil {
				row.job(&j)
			}
			c := contract{Runner: h.runner(), dir: t.TempDir(), id: j.ID}
			for _, command := range []*gitlab.Command{&c.Driver.Prepare, &c.Driver.Run, &c.Driver.Cleanup} {
				command.Exec = faults()
			}
			c.Env, c.AttemptPause = []string{tellMarks}, time.Millisecond
			if row.event != nil {
				row.event(&c, row.stage)
			}
			r := h.playOn(t, c.Runner, j)
			if r.Status != row.status || r.Reason != row.reason || r.ExitCode != row.code {
				t.Errorf("%s, %q, code %d: %s", r.Status, r.Reason, r.ExitCode, r.Log)
			}
			if got := strings.Join(r.Names(), " "); got != row.stages {
				t.Errorf("the stages were %s\nand not           %s\n%s", got, row.stages, r.Log)
			}
			wantLog(t, r.Log, row.log)
			// Where the driver could not know which job it was, nobody but the administrator does.
			if cleanup := r.Last("cleanup"); cleanup.ExitStatus != 0 {
				h.drives(t, "cleanup", "--id", fmt.Sprint(j.ID))
			}
		})
	}
}
