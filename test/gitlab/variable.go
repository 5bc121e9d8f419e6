package gitlab

import (
	"os"
	"path"
	"strconv"
)

// Variable is one CI variable.
type Variable struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Public bool   `json:"public"`
	File   bool   `json:"file"`   // the script gets the name of a file with the value
	Masked bool   `json:"masked"` // the job's log never shows the value
	Raw    bool   `json:"raw"`    // references in the value stay as they are
}

// variables are a job's in the order that decides between equal names: the
// last one wins.
type variables []Variable

// value is what the script sees under a name. A File variable's is its
// content.
func (vs variables) value(key string) string {
	if v := vs.last(key); v != nil {
		return v.Value
	}
	return ""
}

func (vs variables) last(key string) *Variable {
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].Key == key {
			return &vs[i]
		}
	}
	return nil
}

// expand replaces the references in a text once. A reference to a File
// variable is the name of its file.
func (vs variables) expand(text string) string {
	return os.Expand(text, func(key string) string {
		switch v := vs.last(key); {
		case key == "$":
			return "$"
		case v == nil:
			return ""
		case v.File:
			return path.Join(vs.value("RUNNER_TEMP_PROJECT_DIR"), key)
		default:
			return v.Value
		}
	})
}

// expanded are the variables with all their references replaced, except in
// raw ones.
func (vs variables) expanded() variables {
	out := make(variables, len(vs))
	for i, v := range vs {
		if !v.Raw {
			v.Value = vs.expand(v.Value)
		}
		out[i] = v
	}
	return out
}

// variables puts gitlab-runner's own around those that GitLab sent. In a try
// whose directories are not known yet, as in config, their names are empty.
func (r *Running) variables(t *try) variables {
	var vs variables
	add := func(key, value string) {
		vs = append(vs, Variable{Key: key, Value: value, Public: true})
	}
	if r.job.Image.Name != "" {
		add("CI_JOB_IMAGE", r.job.Image.Name)
	}
	add("CI_BUILDS_DIR", t.buildsDir)
	add("CI_PROJECT_DIR", t.projectDir)
	add("CI_CONCURRENT_ID", strconv.Itoa(r.job.ConcurrentID))
	add("CI_CONCURRENT_PROJECT_ID", strconv.Itoa(r.job.ConcurrentProjectID))
	add("CI_SERVER", "yes")
	add("CI_JOB_STATUS", r.jobStatus)
	add("CI_JOB_TIMEOUT", strconv.Itoa(int(r.job.Timeout.Seconds())))
	vs = append(vs, r.job.sentVariables()...)
	add("CI_SHARED_ENVIRONMENT", "true")
	add("CI_RUNNER_VERSION", r.runner.release())
	add("RUNNER_TEMP_PROJECT_DIR", t.tempDir())
	return vs.expanded()
}
