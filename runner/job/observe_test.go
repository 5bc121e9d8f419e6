package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
)

func TestTheFirstScriptThatFailsDecidesTheResultOfAJob(t *testing.T) {
	const failed, broke, stopped = metrics.ScriptFailure, metrics.SystemFailure, metrics.Canceled
	for _, c := range []struct {
		what, want string
		scripts    []string // script=result, in their order
	}{
		{"all well", metrics.Success, []string{"prepare_script=", "build_script=", "cleanup_file_variables="}},
		{"a script failed", failed, []string{"build_script=" + failed, "after_script=", "cleanup_file_variables="}},
		{"after_script does not count", metrics.Success, []string{"build_script=", "after_script=" + failed, "cleanup_file_variables="}},
		{"nor what comes after a failure", failed, []string{"build_script=" + failed, "upload_artifacts_on_failure=" + broke, "cleanup_file_variables=" + broke}},
		{"tried again with success", metrics.Success, []string{"get_sources=" + failed, "get_sources=", "build_script=", "cleanup_file_variables="}},
		{"tried again without", broke, []string{"get_sources=" + broke, "get_sources=" + failed, "cleanup_file_variables="}},
		{"cancelled", stopped, []string{"build_script=" + stopped, "after_script=", "cleanup_file_variables="}},
		{"aborted", stopped, []string{"build_script=" + stopped}},
		{"cut short between two scripts", stopped, []string{"prepare_script=", "get_sources="}},
		{"no script ran", stopped, nil},
		{"artifacts", failed, []string{"build_script=", "upload_artifacts_on_success=" + failed, "cleanup_file_variables="}},
	} {
		var r jobResult
		for _, script := range c.scripts {
			name, result, _ := strings.Cut(script, "=")
			r = r.after(name, result)
		}
		if got := r.final(); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestTheResultOfAStageThatFails(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	job := gitlab.Job{Timeout: time.Hour}
	build := &gitlab.BuildFailure{Code: 1}
	for _, c := range []struct {
		want  string
		ctx   context.Context
		err   error
		since time.Duration
	}{
		{metrics.ScriptFailure, t.Context(), build, time.Minute},
		{metrics.ScriptFailure, t.Context(), failure.Because(failure.Service, build), 2 * time.Hour},
		{metrics.SystemFailure, t.Context(), os.ErrNotExist, time.Minute},
		{metrics.Timeout, t.Context(), failure.Because(failure.Timeout, os.ErrNotExist), time.Minute},
		{metrics.Canceled, stopped, context.Canceled, time.Minute},
		{metrics.Timeout, stopped, context.Canceled, time.Hour - 10*time.Second},
	} {
		o := &observation{job: job}
		if got := o.resultOf(c.ctx, c.err, time.Now().Add(-c.since)); got != c.want {
			t.Errorf("%v after %s: %s, want %s", c.err, c.since, got, c.want)
		}
	}
}

// counted are the numbers that are not zero.
func counted(t *testing.T, d *Driver) (lines []string) {
	t.Helper()
	numbers, broken, err := d.Counted(t.Context())
	if err != nil || broken != nil {
		t.Fatal(err, broken)
	}
	for _, n := range numbers {
		if n.Value > 0 {
			lines = append(lines, strings.Join(append([]string{n.Family}, n.Labels...), " "))
		}
	}
	return lines
}

func TestAPrepareThatFailsCountsItsJobAndWhy(t *testing.T) {
	for _, c := range []struct {
		err  error
		want []string
	}{
		{failure.Because(failure.BootTimeout, os.ErrDeadlineExceeded), []string{"jobs_total sid system_failure", "stage_duration_seconds prepare", "failures_total boot_timeout"}},
		{failure.Because(failure.Policy, jobsFault(os.ErrPermission)), []string{"jobs_total sid script_failure", "stage_duration_seconds prepare", "failures_total policy"}},
		{os.ErrNotExist, []string{"jobs_total sid system_failure", "stage_duration_seconds prepare", "failures_total other"}},
		{nil, []string{"stage_duration_seconds prepare"}},
	} {
		d, _ := newDriver(t, "", nil)
		o := observe("prepare")
		o.image = "sid"
		o.endPrepare(t.Context(), d.Machines, c.err)
		if got := counted(t, d); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestNoImageAndNoRoomHaveReasons(t *testing.T) {
	d, _ := newDriver(t, "min_free_disk: 90%\nmin_free_memory: 100%\n", nil)
	_, err := d.find("unknown")
	if got := failure.Of(failure.Because(failure.NoImage, err)); got != failure.NoImage {
		t.Error(got)
	}
	if got := failure.Of(d.AdmitMemory()); got != failure.NoMemory {
		t.Error(got)
	}
	o := new(observation)
	if err := d.start(t.Context(), gitlab.Job{ID: "7", Image: "unknown"}, nil, nil, o); failure.Of(err) != failure.NoImage || !errors.As(err, new(*gitlab.BuildFailure)) || o.image != "" {
		t.Errorf("%v, image %q", err, o.image)
	}
}

func TestNothingIsCountedAndNothingFailsWithoutAStateDirectoryOrOnAFullOne(t *testing.T) {
	d, _ := newDriver(t, "", nil)
	d.Machines.Dir = filepath.Join(t.TempDir(), "no-state", ".machines")
	observe("prepare").endPrepare(t.Context(), d.Machines, nil)
	if _, err := os.Stat(filepath.Dir(d.Machines.Dir)); err == nil {
		t.Error("the state directory was made")
	}
	d, _ = newDriver(t, "", nil)
	// As on a full disk, no file can be made.
	if err := os.WriteFile(filepath.Join(d.Config.StateDir, ".metrics"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	observe("prepare").endPrepare(t.Context(), d.Machines, nil)
	d.foldCounters(t.Context())
}

func TestAJobWithoutACleanupCountsOnceItsMachineIsRemoved(t *testing.T) {
	for _, c := range []struct {
		owner, kept string
		want        []string
	}{
		{"https://gitlab.example.org 1", "", []string{"jobs_total sid system_failure", "failures_total abandoned"}},
		{"", `{"result":"script_failure","script":"build_script"}`, []string{"jobs_total sid script_failure"}},
		{"", `{"complete":true}`, []string{"jobs_total sid success"}},
		{"7", "", nil}, // no job
	} {
		d, _ := newDriver(t, "", nil)
		Abandoned(d.Machines, machine.Collected{Job: "7", Owner: c.owner, Image: "sid", Result: []byte(c.kept)})
		if got := counted(t, d); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestAScriptWhoseGitlabRunnerDiedIsCountedByWhoRemovesItsMachine(t *testing.T) {
	for reason, want := range map[failure.Reason][]string{
		failure.Abandoned:   {"stage_duration_seconds run"},
		failure.MachineDied: {"stage_duration_seconds run", "failures_total machine_died"},
	} {
		d, _ := newDriver(t, "", nil)
		may := func(machine.Record) error { return nil }
		observe("run").endRun(t.Context(), d.Machines, gitlab.LastScript, may, failure.Because(reason, os.ErrNotExist))
		if got := counted(t, d); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", reason, got, want)
		}
	}
}

func TestAStoppedScriptIsATimeoutIfGitlabRunnerSaysSoAndElseACancel(t *testing.T) {
	failed := &gitlab.BuildFailure{Code: 1}
	for _, c := range []struct {
		what    string
		stopped bool
		err     error
		status  string
		want    string
	}{
		{"RUNNER_SCRIPT_TIMEOUT", true, context.Canceled, "timedout", metrics.Timeout},
		{"somebody cancelled it", true, context.Canceled, "canceled", metrics.Canceled},
		{"the job sets CI_JOB_STATUS", true, context.Canceled, "success", metrics.Canceled},
		{"gitlab-runner was stopped", true, context.Canceled, "failed", metrics.Canceled},
		{"the job says that its failure was a timeout", false, failed, "timedout", metrics.ScriptFailure},
		{"the job says that its success was a timeout", false, nil, "timedout", metrics.Success},
	} {
		d, _ := newDriver(t, "", nil)
		aMachine(t, d, "7")
		ctx, stop := context.WithCancel(t.Context())
		if c.stopped {
			stop()
		}
		o := observe("run")
		o.job = gitlab.Job{ID: "7"}
		o.endRun(ctx, d.Machines, "build_script", allowed, c.err)
		o.endRun(t.Context(), d.Machines, gitlab.LastScript, allowed, nil)
		stop()
		o = observe("cleanup")
		o.job = gitlab.Job{ID: "7"}
		if o.lookBeforeEnd(d.Machines, c.status); o.ended != c.want {
			t.Errorf("%s: %s, want %s", c.what, o.ended, c.want)
		}
	}
}

// aMachine puts a machine of image sid on record, which is up.
func aMachine(t testing.TB, d *Driver, job string) {
	t.Helper()
	dir := filepath.Join(d.Machines.Dir, job)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"format":1,"id":%q,"image":"sid","created":%q,"leader":{"pid":1,"started":1}}`, job, time.Now().Format(time.RFC3339))
	if err := os.WriteFile(filepath.Join(dir, "record.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAScriptThatReachesALimitCountsItAndWhyTheJobFailed(t *testing.T) {
	d, _ := newDriver(t, "", nil)
	aMachine(t, d, "7")
	script := func(name string, err error, reached ...failure.Reason) {
		o := observe("run")
		o.job, o.reached = gitlab.Job{ID: "7"}, reached
		o.endRun(t.Context(), d.Machines, name, allowed, err)
	}
	script("prepare_script", nil)
	script("build_script", &gitlab.BuildFailure{Code: 137}, failure.OOM)
	script("upload_artifacts_on_failure", errors.New("its machine is gone")) // comes of it
	script("cleanup_file_variables", nil)
	if got, want := counted(t, d), []string{"stage_duration_seconds run", "failures_total oom", "limit_hits_total sid memory"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	o := observe("cleanup")
	o.job = gitlab.Job{ID: "7"}
	o.lookBeforeEnd(d.Machines, "")
	if o.ended != metrics.ScriptFailure || o.image != "sid" {
		t.Errorf("%+v", o)
	}
}

func TestAScriptInAMachineOfAnotherOwnerDoesNotChangeTheResultOfItsJob(t *testing.T) {
	d, _ := newDriver(t, "", nil)
	aMachine(t, d, "7")
	o := observe("run")
	o.job = gitlab.Job{ID: "7"}
	o.endRun(t.Context(), d.Machines, "build_script", func(machine.Record) error { return os.ErrPermission }, os.ErrPermission)
	if got := readResult(d.Machines, "7"); got != (jobResult{}) {
		t.Errorf("%+v", got)
	}
}

// What a run stage does for metrics, the journal and top, besides its work.
func BenchmarkObserveRun(b *testing.B) {
	d, _ := newDriver(b, "", nil)
	aMachine(b, d, "7")
	for b.Loop() {
		o := observe("run")
		o.job = gitlab.Job{ID: "7"}
		if err := d.Machines.NoteStage("7", "build_script"); err != nil {
			b.Fatal(err)
		}
		o.endRun(b.Context(), d.Machines, "build_script", allowed, nil)
	}
}
