package gitlab

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Running is a job that is being played, and everything that can happen to it
// from outside.
type Running struct {
	runner    Runner
	job       Job
	log       *jobLog
	runnerLog *lockedWriter
	jobStatus string // CI_JOB_STATUS
	result    Result // complete when done is closed

	over    context.Context // the job was aborted, or took too long
	stopped context.Context // gitlab-runner got SIGTERM
	stop    context.CancelFunc
	dead    context.Context // gitlab-runner is no more
	die     context.CancelFunc
	done    chan struct{}

	mu       sync.Mutex
	cancel   context.CancelFunc // what the first cancel ends: all of the job, later its script
	abort    context.CancelFunc // what a second one ends: all of the job
	canceled bool
	process  *Process // the latest
}

func newRunning(runner Runner, job Job) *Running {
	r := &Running{
		runner:    runner,
		job:       job,
		runnerLog: &lockedWriter{sink: runner.RunnerLog},
		jobStatus: "running",
		result:    Result{Status: Abandoned},
		done:      make(chan struct{}),
	}
	r.over, r.abort = context.WithTimeout(context.Background(), job.Timeout)
	r.cancel = r.abort
	r.stopped, r.stop = context.WithCancel(context.Background())
	r.dead, r.die = context.WithCancel(context.Background())
	r.log = &jobLog{sink: runner.Log, limit: runner.LogLimit}
	if runner.OnLine != nil {
		r.log.onLine = func(line string) { runner.OnLine(r, line) }
	}
	for _, v := range job.sentVariables() {
		if v.Masked && v.Value != "" {
			r.log.masker.secrets = append(r.log.masker.secrets, v.Value)
		}
	}
	// The longest first: one secret may be the beginning of another.
	slices.SortFunc(r.log.masker.secrets, func(a, b string) int { return len(b) - len(a) })
	return r
}

// Wait waits for the job's end, or for gitlab-runner's.
func (r *Running) Wait() Result {
	<-r.done
	return r.result
}

// Process is the driver's process of the moment: the one that runs, or between
// two of them the last that did.
func (r *Running) Process() *Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.process
}

// Cancel is somebody who cancels the job in GitLab. A second one aborts it.
func (r *Running) Cancel() {
	r.mu.Lock()
	end := r.cancel
	if r.canceled {
		end = r.abort
	}
	r.canceled = true
	r.mu.Unlock()
	end()
}

// Abort is GitLab wanting the job gone, whatever it is about to do: its
// process is terminated and only cleanup follows.
func (r *Running) Abort() { r.abort() }

// Stop is SIGTERM to gitlab-runner: it notices in the stage run, after a
// prepare that it lets end in peace, and then terminates the driver and cleans
// up. A second one, or too long a cleanup, kills it.
func (r *Running) Stop() {
	if r.stopped.Err() != nil {
		r.Kill()
		return
	}
	r.stop()
	time.AfterFunc(r.runner.ShutdownTimeout, r.Kill)
}

// Kill is SIGKILL to gitlab-runner: a driver that is running lives on until it
// writes to one of its pipes, and nobody calls it again. The job's directory
// stays in Runner.Dir.
func (r *Running) Kill() { r.die() }

// cancelOnly says what is left of the job for a first cancel to end.
func (r *Running) cancelOnly(cancel context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
}

// alive ends the job's goroutine, as it stands, when gitlab-runner is dead.
func (r *Running) alive() {
	if r.dead.Err() != nil {
		runtime.Goexit()
	}
}

// sleep is a pause between two tries. Only death cuts it short.
func (r *Running) sleep(pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-r.dead.Done():
	}
	r.alive()
}

// await waits for a stage's end. When its context is over before, the process
// group is terminated, after graceful_kill_timeout killed, and after
// force_kill_timeout given up.
func (r *Running) await(ctx context.Context, p *Process) (terminated, killed, left bool) {
	select {
	case <-p.end:
		return
	case <-r.dead.Done():
		return false, false, true
	case <-ctx.Done():
	}
	p.SignalGroup(syscall.SIGTERM)
	if p.endsWithin(r.runner.Driver.GracefulKillTimeout, r.dead.Done()) {
		return true, false, false
	}
	if r.dead.Err() != nil {
		return true, false, true
	}
	p.SignalGroup(syscall.SIGKILL)
	return true, true, !p.endsWithin(r.runner.Driver.ForceKillTimeout, r.dead.Done())
}
