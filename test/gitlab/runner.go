package gitlab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"
)

// Runner is a gitlab-runner with one driver. It holds no state: any number of
// jobs can run at once, from copies or from one and the same.
type Runner struct {
	Driver Driver

	// Version is 15, 17 or 19, zero is 19. Before 17 there is no
	// BUILD_EXIT_CODE_FILE, before 19 the response file lacks fields and a
	// terminated script exits 0.
	Version int

	Dir string   // for the TMPDIRs of jobs, empty is the system's
	Env []string // gitlab-runner's environment, on top of this process's own

	// Log gets the job's log as it grows, nil is nowhere. Jobs that run side
	// by side each need one of their own.
	Log       io.Writer
	RunnerLog io.Writer // gitlab-runner's own, with all that cleanup prints; nil is nowhere
	LogLimit  int       // of the job's log in bytes, zero is 4 MiB

	RetryPause      time.Duration // between tries of prepare, zero is 3 s
	AttemptPause    time.Duration // before the second attempt at a sub-stage, then doubled; zero is 5 s
	ShutdownTimeout time.Duration // from Stop to sudden death, zero is 30 s

	Hooks
}

// Hooks let a test act at a precise moment. They are called in the middle of
// the job: one that waits for the stage to end waits for itself.
type Hooks struct {
	// OnStart is called when a process of the driver has been started.
	OnStart func(*Running, *Process)
	// OnEnd is called when a stage is over, before the next one begins.
	OnEnd func(*Running, StageResult)
	// OnLine is called for every complete line of the job's log, without its
	// colours. The script's lines are announced before they run ("$ echo
	// ready"); compare whole lines to tell those from their output.
	OnLine func(*Running, string)
	// Response may change the response file's content of a try of prepare, or
	// with nil leave the file out.
	Response func([]byte) []byte
}

// Run plays a job to its end. When ctx is done, gitlab-runner is stopped as by
// SIGTERM.
func (r Runner) Run(ctx context.Context, job Job) (Result, error) {
	running, err := r.Start(job)
	if err != nil {
		return Result{}, err
	}
	defer context.AfterFunc(ctx, running.Stop)()
	return running.Wait(), nil
}

// Start begins to play a job. The error is that of a Runner that is none.
func (r Runner) Start(job Job) (*Running, error) {
	r.Version = cmp.Or(r.Version, 19)
	switch {
	case r.Version != 15 && r.Version != 17 && r.Version != 19:
		return nil, fmt.Errorf("gitlab-runner: version %d: only 15, 17 and 19 are known", r.Version)
	case r.Driver.Run.Exec == "":
		return nil, fmt.Errorf("gitlab-runner: driver: run_exec is missing")
	}
	r.Driver = r.Driver.defaults()
	r.LogLimit = cmp.Or(r.LogLimit, 4<<20)
	r.RetryPause = cmp.Or(r.RetryPause, 3*time.Second)
	r.AttemptPause = cmp.Or(r.AttemptPause, 5*time.Second)
	r.ShutdownTimeout = cmp.Or(r.ShutdownTimeout, 30*time.Second)
	if r.RunnerLog == nil {
		r.RunnerLog = io.Discard
	}
	running := newRunning(r, job.complete())
	go running.play()
	return running, nil
}

// release is the version as GitLab shows it.
func (r Runner) release() string {
	return map[int]string{15: "15.11.0", 17: "17.11.0", 19: "19.4.0"}[r.Version]
}
