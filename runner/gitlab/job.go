// Package gitlab knows what gitlab-runner says to a custom executor's driver
// and what it wants to hear: the job in the environment and in
// JOB_RESPONSE_FILE, the names of images and machines, the JSON of the config
// stage, exit codes, and the block for config.toml. It touches nothing else.
//
// A job sets any CUSTOM_ENV_ variable to anything, CI_JOB_ID included. Only
// JOB_RESPONSE_FILE, which gitlab-runner writes from GitLab's answer, is
// trusted. Where there is none, because another CI system or a person calls,
// the environment is read under the same strict patterns.
package gitlab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"time"
)

// Job is one job of GitLab's.
type Job struct {
	// ID is the job's number, or whatever a caller without GitLab chose.
	ID string
	// Image is the image's reference as the job gives it, "" when it names none.
	Image string
	// Services are what else the job wants to run beside it, in its order.
	Services []Service
	// DebugServices says that the job's log has what they say.
	DebugServices bool
	// Registry is what it has for registries of images.
	Registry Registry
	// Trusted says that all of this is GitLab's own word. The fields below
	// are set only then.
	Trusted bool
	// Owner tells the jobs of one GitLab from those of another, whose ids may
	// be the same: the server's URL and a hash of the job's token.
	Owner string
	// server is GitLab's URL.
	server string
	// Project is the project's number, 0 when unknown.
	Project int64
	// Protected says that the job runs for a protected branch or tag.
	Protected bool
	// Timeout is how long GitLab lets the job run, 0 when unknown.
	Timeout time.Duration
}

// ResponseVariable names the file of a job's response in the environment of its stages.
const ResponseVariable = "JOB_RESPONSE_FILE"

// servicesVariable has the job's services. It stands behind the job's variables, so that no
// job can forge it.
const servicesVariable = "CUSTOM_ENV_CI_JOB_SERVICES"

// maxResponse bounds JOB_RESPONSE_FILE. Real ones hold every variable of a
// job: some hundred kilobytes, rarely megabytes.
const maxResponse = 64 << 20

// FromEnvironment reads the job that this process is called for. A given id
// or image, from the command line, wins over both sources.
func FromEnvironment(env Env, id, image string) (Job, error) {
	var job Job
	if path := env(ResponseVariable); path != "" {
		var err error
		if job, err = fromResponse(path, env); err != nil {
			return Job{}, fmt.Errorf("job response %s: %w", path, err)
		}
	} else {
		job = Job{ID: env("CUSTOM_ENV_CI_JOB_ID"), Image: env("CUSTOM_ENV_CI_JOB_IMAGE")}
		known := servicesFromVariable(env(servicesVariable))
		job.Services = servicesOf(known, known, nil, env)
		job.Registry = Registry{DockerConfig: env("CUSTOM_ENV_" + dockerConfig)}
	}
	job.DebugServices, _ = strconv.ParseBool(env("CUSTOM_ENV_CI_DEBUG_SERVICES")) // as gitlab-runner
	if id != "" {
		job.ID = id
	}
	if image != "" {
		job.Image = image
	}
	if job.ID == "" {
		return Job{}, errors.New("no job id: give --id, or set CUSTOM_ENV_CI_JOB_ID")
	}
	if err := checkID(job.ID); err != nil {
		return Job{}, err
	}
	return job, nil
}

// response is the part of GitLab's answer that is of use here.
type response struct {
	ID      json.Number `json:"id"`
	Token   string      `json:"token"`
	JobInfo struct {
		ProjectID int64 `json:"project_id"`
	} `json:"job_info"`
	GitInfo struct {
		Protected *bool `json:"protected"`
	} `json:"git_info"`
	RunnerInfo struct {
		Timeout int64 `json:"timeout"`
	} `json:"runner_info"`
	Variables []variable `json:"variables"`
	Image     struct {
		Name string `json:"name"`
	} `json:"image"`
	Services    []service    `json:"services"`
	Credentials []credential `json:"credentials"`
}

func fromResponse(path string, env Env) (Job, error) {
	file, err := os.Open(path)
	if err != nil {
		return Job{}, errors.Unwrap(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxResponse+1))
	if err != nil {
		return Job{}, err
	}
	if len(data) > maxResponse {
		return Job{}, fmt.Errorf("more than %d MiB", maxResponse>>20)
	}
	return parseResponse(data, env)
}

// parseResponse reads a job from the content of JOB_RESPONSE_FILE. Only values of variables
// for the job's services are from the environment.
func parseResponse(data []byte, env Env) (Job, error) {
	var r response
	if err := json.Unmarshal(data, &r); err != nil {
		return Job{}, err
	}
	if r.ID == "" || r.ID == "0" {
		return Job{}, errors.New("it holds no job id")
	}
	if err := checkID(r.ID.String()); err != nil {
		return Job{}, err
	}
	job := Job{
		ID:        r.ID.String(),
		Image:     r.Image.Name,
		Trusted:   true,
		Project:   r.JobInfo.ProjectID,
		Protected: r.GitInfo.Protected != nil && *r.GitInfo.Protected,
	}
	// More than a century means no limit, and overflows a Duration's arithmetic.
	if t := r.RunnerInfo.Timeout; t > 0 && t < 100*365*24*3600 {
		job.Timeout = time.Duration(t) * time.Second
	}
	for _, v := range r.Variables {
		// The job's own variables come after GitLab's: the first is GitLab's word.
		if v.Key == "CI_SERVER_URL" {
			job.server = v.Value
			break
		}
	}
	job.Owner = job.server + " " + hash(r.Token)
	job.Registry = registryOf(r.Variables, r.Credentials, env)
	job.Services = servicesOf(r.Services, servicesFromVariable(env(servicesVariable)), r.Variables, env)
	return job, nil
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// CacheKey names the cache of the job's project: a relative path of three
// elements, "" when the job's project is not known for sure. Branches that are not
// protected have a cache of their own: whoever may push to one must not be
// able to poison what protected branches build with.
func (j Job) CacheKey() string {
	if !j.Trusted || j.Project <= 0 || j.server == "" {
		return ""
	}
	kind := "unprotected"
	if j.Protected {
		kind = "protected"
	}
	return fmt.Sprintf("%s/%d/%s", hash(j.server)[:16], j.Project, kind)
}

// maxID leaves room for a prefix in a host name's 64 bytes.
const maxID = 48

// validID is what systemd takes for a host name: labels of letters, digits and
// inner dashes, with dots between them.
var validID = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// checkID says what is wrong with an id. Ids become parts of paths, of unit
// names and of host names.
func checkID(id string) error {
	if len(id) > maxID || !validID.MatchString(id) {
		return fmt.Errorf("job id %s: want at most %d letters and digits, and single dots and dashes between them", quote(id), maxID)
	}
	return nil
}

// quote makes a value from outside fit for a message: escaped and short.
func quote(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q...", s[:80])
	}
	return fmt.Sprintf("%q", s)
}
