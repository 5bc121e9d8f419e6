// Package gitlab plays gitlab-runner to a custom-executor driver.
//
// gitlab-runner itself cannot be had where the tests run, so this package
// takes its part: given the driver as config.toml describes it and a [Job],
// it plays the job's whole life exactly as observed of real ones. The driver
// cannot tell the difference: it gets the same processes with the same
// arguments, environment, files, pipes and signals, in the same order.
//
//	runner := gitlab.Runner{
//		Driver: gitlab.Driver{
//			Config:  gitlab.Command{Exec: driver, Args: []string{"gitlab-config"}},
//			Prepare: gitlab.Command{Exec: driver, Args: []string{"prepare"}},
//			Run:     gitlab.Command{Exec: driver, Args: []string{"run"}},
//			Cleanup: gitlab.Command{Exec: driver, Args: []string{"cleanup"}},
//		},
//		Log: os.Stdout,
//	}
//	result, err := runner.Run(ctx, gitlab.Job{
//		ID: 42, Image: gitlab.Image{Name: "bookworm"}, Script: []string{"make test"},
//	})
//
// # A job's life
//
// Stages are config, prepare, run (once for each sub-stage) and cleanup; each
// is a process of its own, and it ends when the process has ended and nobody
// holds its stdout or stderr any more. What follows depends on how it ended:
// 0 is success, 1 the job's failure, 2 and everything else the system's.
// Config and prepare are tried three times after a system failure, with
// cleanup in between; [Result] lists every process with its end and its cost.
//
// # Acting on a running job
//
// [Runner.Start] returns a [Running] job that can be canceled, aborted, or
// lose its gitlab-runner, gracefully or not. [Hooks] say when: as soon as a
// process of the driver has started, when it has ended, or when a line shows
// up in the job's log. No test has to sleep:
//
//	runner.OnStart = func(job *gitlab.Running, p *gitlab.Process) {
//		if p.SubStage == "get_sources" {
//			job.Cancel()
//		}
//	}
//
// A signal to the driver itself is [Process.Signal] or [Process.SignalGroup],
// and [Running.Process] is whom to send it to. As a systemd service,
// gitlab-runner's stop reaches its driver in the same moment; that is
// SignalGroup followed by [Running.Stop].
//
// # What differs from the real one
//
// The simulator dies by [Running.Kill] only in that it closes its pipes and
// does nothing more: the driver's parent process is still there. Where that
// matters, run the command in simulate and kill it. The job's log carries no
// timestamps and no section marks, a cancel is noticed at once rather than
// when gitlab-runner next talks to GitLab, and the umask is the caller's.
package gitlab
