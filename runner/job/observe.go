package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/journal"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
)

// observation collects what metrics and the journal say about one call of a stage. Its errors never
// fail the stage.
type observation struct {
	stage string
	began time.Time
	job   gitlab.Job
	// image is the name of the job's image, "" as long as it is not known; generation is the name
	// of its generation.
	image, generation string
	// reached are the limits of its machine that the stage's script reached.
	reached []failure.Reason
	samples []metrics.Sample
	// ended is the result of the job that a cleanup ends, "" if there is no such job. used is what
	// the job's machines used.
	ended string
	used  []metrics.Sample
	// usage is what the main machine of that job used.
	usage limits.Usage
}

func observe(stage string) *observation { return &observation{stage: stage, began: time.Now()} }

// endPrepare counts a prepare stage. If it failed, the job has ended, and is counted too.
func (o *observation) endPrepare(ctx context.Context, machines machine.Store, err error) {
	if err == nil {
		o.end(machines, nil, "")
		o.say(err, "", "job %s began: image %s, generation %s", o.job.ID, o.image, filepath.Base(o.generation))
		if line := crowd(machines.Dir, inotifyLimit); line != "" {
			journal.Warning(o.fields(), line)
		}
		return
	}
	result := o.resultOf(ctx, err, o.began)
	o.add(metrics.Jobs.Sample(1, o.image, result))
	o.end(machines, err, result)
	o.say(err, result, "job %s ended before it began: %v", o.job.ID, err)
}

// endRun counts a run stage, and keeps what the end of its script means for the job's result. may says
// whether a machine is the job's.
//
// If gitlab-runner is dead, another process has removed the machine and counted the job: see
// [Abandoned].
func (o *observation) endRun(ctx context.Context, machines machine.Store, script string, may func(machine.Record) error, err error) {
	if failure.Of(err) == failure.Abandoned {
		o.end(machines, nil, "")
		return
	}
	began, result := o.began, ""
	record, unknown := machines.RecordOf(o.job.ID, machine.Main)
	mine := unknown == nil && may(record) == nil
	if mine {
		o.image, began = record.Image, record.Created
	}
	for _, limit := range o.reached {
		o.add(metrics.LimitHits.Sample(1, o.image, limitNames[limit]))
	}
	if err != nil {
		result = o.resultOf(ctx, err, began)
	}
	byHand := script == ""
	if mine && !byHand && keepResult(machines, o.job.ID, script, result) {
		err = nil // the job had failed before, and this failure follows from that
	}
	o.end(machines, err, result)
	if err != nil && (o.why(err, result) != "" || result == metrics.Timeout || result == metrics.Canceled) { // otherwise the exit code says it all
		o.say(err, result, "job %s: %s: %s", o.job.ID, cmp.Or(script, "script"), o.words(err))
	}
}

// words says why a script failed.
func (o *observation) words(err error) string {
	if build := (*gitlab.BuildFailure)(nil); errors.As(err, &build) && len(o.reached) > 0 {
		return fmt.Sprintf("it failed with exit code %d, and its machine had reached a limit (%s)", build.Code, o.reached[0])
	}
	return err.Error()
}

// limitNames are the names of limits in metrics.
var limitNames = map[failure.Reason]string{failure.OOM: "memory", failure.Tasks: "tasks", failure.Disk: "disk"}

// reasonsOf returns the limits of its machine that a script reached.
func reasonsOf(outcome machine.Outcome) (all []failure.Reason) {
	if outcome.OutOfMemory != nil {
		all = append(all, failure.OOM)
	}
	if outcome.OutOfTasks != nil {
		all = append(all, failure.Tasks)
	}
	if outcome.DiskFull != nil {
		all = append(all, failure.Disk)
	}
	return all
}

// endCleanup counts a cleanup, and if it removed the machine of a job, the job.
func (o *observation) endCleanup(machines machine.Store, err error) {
	switch {
	case err != nil:
		o.say(err, "", "job %s: cleanup: %v", o.job.ID, err)
	case o.ended != "":
		o.add(metrics.Jobs.Sample(1, o.image, o.ended))
		o.add(o.used...)
		o.say(nil, o.ended, "%s", o.usage.Of(fmt.Sprintf("job %s ended: %s", o.job.ID, o.ended)))
	}
	o.end(machines, err, "")
}

// say writes a line about the job to the host's journal.
func (o *observation) say(err error, result, format string, args ...any) {
	if o.job.ID == "" {
		return // the stage was called without a job
	}
	fields := o.fields()
	fields.Result, fields.Reason = result, string(o.why(err, result))
	if o.stage == "run" && result == metrics.Canceled {
		fields.Result = "" // cleanup will know whether its time was over
	}
	line := fmt.Sprintf(format, args...)
	if fields.Reason == "" {
		journal.Info(fields, line)
	} else {
		journal.Warning(fields, line)
	}
}

// fields returns those of journal lines about the stage.
func (o *observation) fields() journal.Fields {
	return journal.Fields{Job: o.job.ID, Project: o.job.Project, Image: o.image, Stage: o.stage}
}

// end counts the stage in the state directory of machines. result is its result if it failed.
func (o *observation) end(machines machine.Store, err error, result string) {
	o.add(metrics.StageDuration.Sample(time.Since(o.began).Seconds(), o.stage))
	if reason := o.why(err, result); reason != "" {
		o.add(metrics.Failures.Sample(1, string(reason)))
	}
	_ = counters(machines).Record(o.samples...)
}

func (o *observation) add(samples ...metrics.Sample) { o.samples = append(o.samples, samples...) }

// why returns the reason why the stage failed. It is "" if the stage did not fail, if the exit code of
// a script says why, or if gitlab-runner stopped it.
func (o *observation) why(err error, result string) failure.Reason {
	reason := failure.Of(err)
	switch {
	case result == metrics.Canceled || result == metrics.Timeout && reason != failure.Timeout:
		return ""
	case err == nil || reason != "":
		return reason
	case len(o.reached) > 0:
		return o.reached[0]
	case errors.As(err, new(*gitlab.BuildFailure)):
		return ""
	}
	return failure.Other
}

// resultOf returns the result of a stage that failed, in the words of metrics. ctx has ended if
// gitlab-runner stopped the stage.
func (o *observation) resultOf(ctx context.Context, err error, jobBegan time.Time) string {
	switch {
	case failure.Of(err) == failure.Timeout:
		return metrics.Timeout
	case ctx.Err() != nil && isTimeUp(o.job, jobBegan):
		return metrics.Timeout
	case ctx.Err() != nil:
		return metrics.Canceled
	case errors.As(err, new(*gitlab.BuildFailure)):
		return metrics.ScriptFailure
	}
	return metrics.SystemFailure
}

// Abandoned counts a job whose cleanup was never called: its gitlab-runner died, or the host was
// restarted.
func Abandoned(machines machine.Store, main machine.Collected) {
	if main.Owner == main.Job { // a trial, a build or a try: not a job of GitLab
		return
	}
	result, reason := metrics.SystemFailure, failure.Abandoned
	samples := samplesOf(main.Used)
	if was := parseResult(main.Result); was.Result != "" || was.Complete { // GitLab knows the result
		result, reason = was.final(), ""
	} else {
		samples = append(samples, metrics.Failures.Sample(1, string(reason)))
	}
	_ = counters(machines).Record(append(samples, metrics.Jobs.Sample(1, main.Image, result))...)
	journal.Warning(journal.Fields{
		Job: main.Job, Project: main.Project, Image: main.Image, Stage: "cleanup", Result: result, Reason: string(reason),
	}, fmt.Sprintf("job %s ended: %s: its cleanup was not called, so its machine was removed without it", main.Job, result))
}

// lookBeforeEnd reads the result of a job, and what it used, before a cleanup removes its machines.
// status is gitlab-runner's word for a script that was stopped: it was cancelled, or its time was over. A
// job that forges the word gets nothing but the other result.
func (o *observation) lookBeforeEnd(machines machine.Store, status string) {
	main, err := machines.RecordOf(o.job.ID, machine.Main)
	if err != nil || main.Leader == nil { // prepare failed, and has counted the job
		return
	}
	o.image = main.Image
	o.ended = readResult(machines, o.job.ID).final()
	if o.ended == metrics.Canceled && (status == gitlab.ScriptTimedOut || isTimeUp(o.job, main.Created)) {
		o.ended = metrics.Timeout
	}
	o.usage.Elapsed = main.Age()
	all := machines.UsageOfAll(main)
	for _, used := range all {
		if used.ID == main.ID {
			o.usage = used.Usage
		}
	}
	o.used = samplesOf(all)
}

// samplesOf count what machines of a job used.
func samplesOf(all []machine.MachineUsage) (samples []metrics.Sample) {
	for _, used := range all {
		image := used.Image
		if used.FromRegistry {
			image = metrics.FromRegistry
		}
		samples = append(samples, metrics.JobCPU.Sample(used.Processor.Seconds(), image), metrics.JobWritten.Sample(float64(used.Written), image))
		if used.Memory > 0 {
			samples = append(samples, metrics.JobMemoryPeak.Sample(float64(used.Memory), image))
		}
	}
	return samples
}

// isTimeUp says whether the timeout of a job is over. began is when its machine was made; the timeout
// began a little earlier.
func isTimeUp(job gitlab.Job, began time.Time) bool {
	return job.Timeout > 0 && time.Since(began) > job.Timeout-min(job.Timeout/10, 30*time.Second)
}
