package job

import (
	"encoding/json"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
)

// jobResult is what is known of a job's result while it runs.
type jobResult struct {
	// Script is the sub-stage that decided it, Result how that ended; both are "" as long as
	// nothing failed.
	Script string `json:"script,omitempty"`
	Result string `json:"result,omitempty"`
	// Complete says that gitlab-runner executed the last script: nothing cut the job short.
	Complete bool `json:"complete,omitempty"`
}

// after is the result after one more script. The first script that fails decides, unless
// gitlab-runner tries it again with success. Those after it do not matter.
func (r jobResult) after(script, result string) jobResult {
	switch {
	case script == gitlab.LastScript:
		r.Complete = true
	case script == gitlab.AfterScript:
	case result != "" && r.Result == "":
		r.Script, r.Result = script, result
	case result == "" && r.Script == script:
		r.Script, r.Result = "", ""
	}
	return r
}

// final is the result of the job when its machine goes.
func (r jobResult) final() string {
	switch {
	case r.Result != "":
		return r.Result
	case r.Complete:
		return metrics.Success
	}
	return metrics.Canceled
}

// keepResult keeps what a script of a job means for the job's result: result is "" for one
// that succeeded. It rarely has to write. It says whether another script decided that before.
func keepResult(machines machine.Store, job, script, result string) (decided bool) {
	was := readResult(machines, job)
	now := was.after(script, result)
	if now != was {
		if text, err := json.Marshal(now); err == nil {
			_ = machines.KeepResult(job, text)
		}
	}
	return was.Result != "" && was.Script != script
}

func readResult(machines machine.Store, job string) jobResult {
	text, _ := machines.Result(job)
	return parseResult(text)
}

func parseResult(text []byte) (r jobResult) {
	_ = json.Unmarshal(text, &r) // nothing is kept of a job of which nothing failed yet
	return r
}
