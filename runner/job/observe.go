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

// observation is a stage that is observed: how long it takes, and how it ends. Nothing of
// that may fail the stage.
type observation struct {
	stage string
	began time.Time
	job   gitlab.Job
	// image is the name of the job's image, "" as long as it has none, and generation is that
	// image's.
	image, generation string
	// reached are why the stage's script failed, or would have: limits of its machine.
	reached []failure.Reason
	samples []metrics.Sample
	// ended is how the job ended that a cleanup ends, "" if there is none, used what its
	// machines used.
	ended string
	used  []metrics.Sample
	// usage is what the job's main machine used.
	usage limits.Usage
}

func observe(stage string) *observation { return &observation{stage: stage, began: time.Now()} }

// endPrepare counts a prepare stage that ended with an error or nil. A job that it did not
// start ends with it.
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

// endRun counts a run stage, and keeps what its script means for the job.
//
// may says whether it was the job's machine. Whoever removed the machine of a dead gitlab-runner
// counts that, see [Abandoned].
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
		err = nil // the job has failed before, and this comes of it
	}
	o.end(machines, err, result)
	if err != nil && (o.why(err, result) != "" || result == metrics.Timeout || result == metrics.Canceled) { // else the exit code says all
		o.say(err, result, "job %s: %s: %s", o.job.ID, cmp.Or(script, "script"), o.words(err))
	}
}

// words are why a script failed.
func (o *observation) words(err error) string {
	if build := (*gitlab.BuildFailure)(nil); errors.As(err, &build) && len(o.reached) > 0 {
		return fmt.Sprintf("it failed with exit code %d, and its machine had reached a limit (%s)", build.Code, o.reached[0])
	}
	return err.Error()
}

// limitNames are the names of limits in metrics.
var limitNames = map[failure.Reason]string{failure.OOM: "memory", failure.Tasks: "tasks", failure.Disk: "disk"}

// reasonsOf are the limits of its machine that a script reached.
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
		return // somebody called the stage without a job
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

// fields are those of lines about the stage.
func (o *observation) fields() journal.Fields {
	return journal.Fields{Job: o.job.ID, Project: o.job.Project, Image: o.image, Stage: o.stage}
}

// end counts the stage in the state directory of some machines. result is how it ended if
// it failed.
func (o *observation) end(machines machine.Store, err error, result string) {
	o.add(metrics.StageDuration.Sample(time.Since(o.began).Seconds(), o.stage))
	if reason := o.why(err, result); reason != "" {
		o.add(metrics.Failures.Sample(1, string(reason)))
	}
	_ = counters(machines).Record(o.samples...)
}

func (o *observation) add(samples ...metrics.Sample) { o.samples = append(o.samples, samples...) }

// why is why the stage failed, "" if the exit code of a script says it, if gitlab-runner
// stopped it, or if it did not fail.
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

// resultOf is how a stage ended that failed, in the words of metrics. The stage's context
// ends when gitlab-runner stops the stage.
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

// Abandoned counts a job that no cleanup ended: its gitlab-runner died, or the host was
// restarted.
func Abandoned(machines machine.Store, main machine.Collected) {
	if main.Owner == main.Job { // a trial or a build, or somebody tried an image
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
	}, fmt.Sprintf("job %s ended: %s: nobody called its cleanup, so its machine was removed without", main.Job, result))
}

// lookBeforeEnd looks at the machines of a job before a cleanup removes them: how the job
// ended, and what it used. A script that was stopped was so by somebody or by a time limit:
// status is what gitlab-runner says of that. No job gets more than the one word for the other.
func (o *observation) lookBeforeEnd(machines machine.Store, status string) {
	main, err := machines.RecordOf(o.job.ID, machine.Main)
	if err != nil || main.Leader == nil { // prepare failed, and counted the job
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

// isTimeUp says whether a job that began about then has had the time that GitLab gives it.
// What gitlab-runner did before counts too, so a little less is enough.
func isTimeUp(job gitlab.Job, began time.Time) bool {
	return job.Timeout > 0 && time.Since(began) > job.Timeout-min(job.Timeout/10, 30*time.Second)
}
