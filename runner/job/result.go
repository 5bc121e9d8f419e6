package job

import (
	"encoding/json"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/metrics"
)

// jobResult is what is known of a job's result while it runs.
type jobResult struct {
	// Script is the sub-stage that decided the result. Both are "" as long as nothing failed.
	Script string `json:"script,omitempty"`
	Result string `json:"result,omitempty"`
	// Complete says that gitlab-runner has executed the last script of the job.
	Complete bool `json:"complete,omitempty"`
}

// after returns the result after one more script. The first script that fails decides the result, unless
// gitlab-runner tries it again and it succeeds. Later failures change nothing.
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

// final returns the result of the job when its machine is removed.
func (r jobResult) final() string {
	switch {
	case r.Result != "":
		return r.Result
	case r.Complete:
		return metrics.Success
	}
	return metrics.Canceled
}

// keepResult keeps what the end of a script means for the job's result. result is "" if the script succeeded. It
// writes only if something changes. decided says whether another script had decided the result before.
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
	_ = json.Unmarshal(text, &r) // there is no text as long as nothing has failed
	return r
}
