package gitlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// run plays the sub-stages. It is here, and only here, that gitlab-runner
// notices that it is to stop.
func (r *Running) run(t *try) error {
	if r.stopped.Err() != nil {
		return errStopped
	}
	ctx, cancel := context.WithCancelCause(r.over)
	defer cancel(nil)
	defer context.AfterFunc(r.stopped, func() { cancel(errStopped) })()

	err := r.subStages(ctx, t)
	if ctx.Err() != nil {
		return r.ended(ctx)
	}
	return err
}

// subStages are those of a job in their order. Once ctx is over, those that
// are left return at once.
func (r *Running) subStages(ctx context.Context, t *try) error {
	err := r.subStage(ctx, t, PrepareScript, 1, func(w *writer) error { w.prepareScript(); return nil })
	if err != nil {
		return fmt.Errorf("prepare environment: %w", err)
	}
	if err := r.sources(ctx, t); err != nil {
		r.cleanupVariables(ctx, t)
		return err
	}
	err = r.scripts(ctx, t)
	archiveErr := r.archive(ctx, t, outcome(err))
	r.cleanupVariables(ctx, t)
	if err != nil {
		return err
	}
	return archiveErr
}

// sources brings the job's files into the machine.
func (r *Running) sources(ctx context.Context, t *try) error {
	err := r.attempts(ctx, t, GetSources, "GET_SOURCES_ATTEMPTS", (*writer).getSources)
	if err == nil && len(r.job.Cache) > 0 {
		err = r.attempts(ctx, t, RestoreCache, "RESTORE_CACHE_ATTEMPTS", (*writer).restoreCache)
	}
	if err == nil && len(r.job.artifactsToDownload()) > 0 {
		err = r.attempts(ctx, t, DownloadArtifacts, "ARTIFACT_DOWNLOAD_ATTEMPTS",
			func(w *writer) error { w.downloadArtifacts(); return nil })
	}
	return err
}

// scripts runs what the job is for, and after_script whatever comes of it.
// From here on a cancel ends the script alone.
func (r *Running) scripts(jobCtx context.Context, t *try) error {
	ctx, cancel := r.scriptContext(jobCtx, t, "RUNNER_SCRIPT_TIMEOUT", 0)
	defer cancel()
	r.cancelOnly(cancel)

	err := r.subStage(ctx, t, BuildScript, 1, func(w *writer) error { w.userScript(r.job.script()); return nil })
	for _, s := range r.job.Steps {
		if err == nil {
			err = r.subStage(ctx, t, "step_"+strings.ToLower(s.Name), 1, func(w *writer) error { w.userScript(s.Script); return nil })
		}
	}
	switch {
	case jobCtx.Err() != nil: // the script's end does not matter, and nothing follows
		r.jobStatus = jobStatus(err)
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		err = errCanceled
		r.log.printf(yellow + "WARNING: script canceled externally (UI, API)")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = &failure{reason: Timeout, text: "script timeout exceeded"}
	}
	r.jobStatus = jobStatus(err)

	if len(r.job.AfterScript) > 0 {
		ctx, cancel := r.scriptContext(jobCtx, t, "RUNNER_AFTER_SCRIPT_TIMEOUT", 5*time.Minute)
		defer cancel()
		if afterErr := r.subStage(ctx, t, AfterScript, 1, func(w *writer) error { w.afterScript(); return nil }); afterErr != nil {
			r.log.printf(yellow+"WARNING: after_script failed, but job will continue unaffected: %v", afterErr)
		}
	}
	return err
}

// archive saves caches and artifacts, each of them even if the other failed.
func (r *Running) archive(ctx context.Context, t *try, outcome Status) error {
	cacheStage, uploadStage := ArchiveCache, UploadArtifacts
	if outcome != Success {
		cacheStage, uploadStage = ArchiveCacheFailed, UploadFailed
	}
	var cacheErr, uploadErr error
	if caches := r.job.cachesFor(outcome); len(caches) > 0 {
		cacheErr = r.subStage(ctx, t, cacheStage, 1, func(w *writer) error { return w.archiveCache(caches) })
	}
	if artifacts := r.job.artifactsFor(outcome); len(artifacts) > 0 {
		uploadErr = r.subStage(ctx, t, uploadStage, 1, func(w *writer) error { w.uploadArtifacts(artifacts); return nil })
	}
	if cacheErr != nil {
		return cacheErr
	}
	return uploadErr
}

// cleanupVariables never changes the job's result.
func (r *Running) cleanupVariables(ctx context.Context, t *try) {
	err := r.subStage(ctx, t, CleanupVariables, 1, func(w *writer) error { w.cleanupVariables(); return nil })
	if err != nil {
		fmt.Fprintf(r.runnerLog, "WARNING: Error while executing file based variables removal script: %v\n", err)
	}
}

// attempts repeats a sub-stage as often as the job's variable wants it.
func (r *Running) attempts(ctx context.Context, t *try, name, variable string, write func(*writer) error) error {
	wanted, err := strconv.Atoi(r.variables(t).value(variable))
	if err != nil || wanted < 1 || wanted > 10 {
		wanted = 1
	}
	pause := r.runner.AttemptPause
	for n := 1; ; n++ {
		err := error(nil)
		if name == GetSources && n == 2 {
			err = r.subStage(ctx, t, ClearWorktree, 1, func(w *writer) error { w.clearWorktree(); return nil })
		}
		if err == nil {
			err = r.subStage(ctx, t, name, n, write)
		}
		if err == nil || n == wanted || ctx.Err() != nil {
			return err
		}
		r.log.printf("Retrying in %v", pause)
		r.sleep(pause)
		pause *= 2
	}
}

// subStage writes the script and hands it to the driver's run.
func (r *Running) subStage(ctx context.Context, t *try, name string, attempt int, write func(*writer) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w := &writer{job: r.job, try: t, vs: r.variables(t)}
	if err := write(w); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(t.dir, "script")
	if err != nil {
		return err
	}
	file := path.Join(dir, "script")
	if err := os.WriteFile(file, []byte(w.text(t.shell, r.runner.Version)), 0o700); err != nil {
		return err
	}
	r.log.printf(cyan+"%s", header(name))
	argv := append(r.runner.Driver.Run.argv(), file, name)
	return r.execute(ctx, t, &Process{Stage: "run", SubStage: name, Try: attempt, Args: argv}, r.log, r.log)
}

// scriptContext is the time that the job's variable gives to a script.
func (r *Running) scriptContext(ctx context.Context, t *try, variable string, standard time.Duration) (context.Context, context.CancelFunc) {
	limit := standard
	if value := r.variables(t).value(variable); value != "" {
		if given, err := time.ParseDuration(value); err != nil || given < 0 {
			r.log.printf(yellow+"WARNING: Ignoring malformed %s timeout: %v", variable, value)
		} else if given > 0 {
			limit = given
		}
	}
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// outcome is what a script's end makes of the job.
func outcome(err error) Status {
	switch {
	case err == nil:
		return Success
	case errors.Is(err, errCanceled):
		return Canceled
	}
	return Failed
}

// jobStatus is what CI_JOB_STATUS says of a script's end (runtimeStateAndError in
// common/build.go): it tells a time limit from a failure.
func jobStatus(err error) string {
	if f := (*failure)(nil); errors.As(err, &f) && f.reason == Timeout || errors.Is(err, context.DeadlineExceeded) {
		return "timedout"
	}
	return string(outcome(err))
}
