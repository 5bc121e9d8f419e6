package gitlab

import (
	"encoding/json"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Status is how a job ended.
type Status string

// The ways a job ends.
const (
	Success  Status = "success"
	Failed   Status = "failed"
	Canceled Status = "canceled"
	// Abandoned is a job whose gitlab-runner died: GitLab hears nothing more.
	Abandoned Status = "abandoned"
)

// Reason is whose fault a failed job is.
type Reason string

// GitLab's reasons of failure.
const (
	ScriptFailure      Reason = "script_failure"
	SystemFailure      Reason = "runner_system_failure"
	Timeout            Reason = "job_execution_timeout"
	ConfigurationError Reason = "configuration_error"
)

// Result is what became of a job.
type Result struct {
	Status   Status `json:"status"`
	Reason   Reason `json:"reason,omitempty"`    // of a failed job
	ExitCode int    `json:"exit_code,omitempty"` // of a script failure; 0 is no code
	Message  string `json:"message,omitempty"`   // in GitLab's words, why it did not succeed

	Stages []StageResult `json:"stages"` // every process of the driver, in order
	Log    string        `json:"log"`    // the job's, with its colours
}

// Last is the latest process of a stage or sub-stage, or nil.
func (r Result) Last(name string) *StageResult {
	for i := len(r.Stages) - 1; i >= 0; i-- {
		if r.Stages[i].Name() == name {
			return &r.Stages[i]
		}
	}
	return nil
}

// Names are the stages of the job in order, run's by their sub-stage.
func (r Result) Names() []string {
	var names []string
	for _, s := range r.Stages {
		names = append(names, s.Name())
	}
	return names
}

// StageResult is one process of the driver: how it ended and what it cost.
type StageResult struct {
	Stage    string `json:"stage"` // config, prepare, run or cleanup
	SubStage string `json:"sub_stage,omitempty"`
	Try      int    `json:"try"` // of prepare or of the sub-stage, from 1
	Pid      int    `json:"pid"` // 0 when the process could not be started

	ExitStatus int            `json:"exit_status"` // -1 without one
	Signal     syscall.Signal `json:"-"`           // that killed it, or 0
	Terminated bool           `json:"terminated,omitempty"`
	Killed     bool           `json:"killed,omitempty"` // as it did not heed SIGTERM
	// Left is a process that gitlab-runner has given up, or that outlived it.
	Left  bool   `json:"left,omitempty"`
	Error string `json:"error,omitempty"` // in GitLab's words

	Elapsed time.Duration `json:"-"` // until its end and that of its pipes
	User    time.Duration `json:"-"`
	System  time.Duration `json:"-"`
	PeakRSS int64         `json:"peak_rss"` // in bytes
}

// Name is the sub-stage of run, and the stage of all others.
func (s StageResult) Name() string {
	if s.SubStage != "" {
		return s.SubStage
	}
	return s.Stage
}

// MarshalJSON writes durations as seconds and the signal by its name.
func (s StageResult) MarshalJSON() ([]byte, error) {
	type fields StageResult
	return json.Marshal(struct {
		fields
		Signal  string  `json:"signal,omitempty"`
		Elapsed float64 `json:"elapsed_seconds"`
		User    float64 `json:"user_seconds"`
		System  float64 `json:"system_seconds"`
	}{fields(s), unix.SignalName(s.Signal), s.Elapsed.Seconds(), s.User.Seconds(), s.System.Seconds()})
}
