package gitlab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
)

// response is JOB_RESPONSE_FILE: GitLab's answer to gitlab-runner's request
// for a job, the only thing about a job that the job itself cannot forge. A
// pointer with omitempty is a field that older gitlab-runners lack; all others
// are there with their zero value when GitLab did not send them.
type response struct {
	ID            int64                `json:"id"`
	Token         string               `json:"token"`
	AllowGitFetch bool                 `json:"allow_git_fetch"`
	JobInfo       responseJobInfo      `json:"job_info"`
	GitInfo       responseGitInfo      `json:"git_info"`
	RunnerInfo    responseRunnerInfo   `json:"runner_info"`
	Variables     []Variable           `json:"variables"`
	Steps         []responseStep       `json:"steps"`
	Image         Image                `json:"image"`
	Services      []Image              `json:"services"`
	Artifacts     []Artifact           `json:"artifacts"`
	Cache         []Cache              `json:"cache"`
	Credentials   []responseCredential `json:"credentials"`
	Dependencies  []responseDependency `json:"dependencies"`
	Features      responseFeatures     `json:"features"`
}

type responseJobInfo struct {
	Name            string  `json:"name"`
	Stage           string  `json:"stage"`
	PipelineID      *int64  `json:"pipeline_id,omitempty"`
	ProjectID       int64   `json:"project_id"`
	ProjectName     string  `json:"project_name"`
	ProjectFullPath *string `json:"project_full_path,omitempty"`
	NamespaceID     *int64  `json:"namespace_id,omitempty"`
	UserID          *int64  `json:"user_id,omitempty"`
	TimeInQueue     float64 `json:"time_in_queue_seconds"`
}

type responseGitInfo struct {
	RepoURL   string   `json:"repo_url"`
	Ref       string   `json:"ref"`
	SHA       string   `json:"sha"`
	BeforeSHA string   `json:"before_sha"`
	RefType   string   `json:"ref_type"`
	Refspecs  []string `json:"refspecs"`
	Depth     int      `json:"depth"`
	Protected **bool   `json:"protected,omitempty"` // null when GitLab itself is too old
}

type responseRunnerInfo struct {
	UUID    *string `json:"uuid,omitempty"`
	Timeout int     `json:"timeout"`
}

type responseStep struct {
	Name         string   `json:"name"`
	Script       []string `json:"script"`
	Timeout      int      `json:"timeout"`
	When         When     `json:"when"`
	AllowFailure bool     `json:"allow_failure"`
}

type responseCredential struct {
	Type     string `json:"type"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

type responseDependency struct {
	ID            int64  `json:"id"`
	Token         string `json:"token"`
	Name          string `json:"name"`
	ArtifactsFile struct {
		Filename string `json:"filename"`
		Size     int64  `json:"size"`
	} `json:"artifacts_file"`
}

type responseFeatures struct {
	TraceSections  bool     `json:"trace_sections"`
	TokenPrefixes  []string `json:"token_mask_prefixes"`
	FailureReasons []Reason `json:"failure_reasons"`
}

// response is one JSON line about the job. The names of images are expanded
// with the job's variables, the variables are not.
func (r *Running) response(vs variables) ([]byte, error) {
	j := r.job
	expand := func(image Image) Image {
		image.Name, image.Alias = vs.expand(image.Name), vs.expand(image.Alias)
		return image
	}
	out := response{
		ID:    j.ID,
		Token: j.Token,
		JobInfo: responseJobInfo{
			Name:            j.Name,
			Stage:           j.Stage,
			PipelineID:      since(19, r.runner, j.PipelineID),
			ProjectID:       j.Project.ID,
			ProjectName:     variables(j.predefined()).value("CI_PROJECT_NAME"),
			ProjectFullPath: since(17, r.runner, j.Project.Path),
			NamespaceID:     since(19, r.runner, j.Project.NamespaceID),
			UserID:          since(19, r.runner, j.UserID),
		},
		GitInfo: responseGitInfo{
			RepoURL:   j.repositoryURL(),
			Ref:       j.Git.Ref,
			SHA:       j.Git.SHA,
			BeforeSHA: j.Git.BeforeSHA,
			RefType:   j.Git.RefType,
			Refspecs:  []string{j.refspec()},
			Depth:     j.Git.Depth,
			Protected: since(19, r.runner, j.Git.Protected),
		},
		RunnerInfo: responseRunnerInfo{
			UUID:    since(17, r.runner, "00000000-0000-4000-8000-000000000000"),
			Timeout: int(j.Timeout.Seconds()),
		},
		Variables: j.sentVariables(),
		Steps:     []responseStep{{Name: "script", Script: j.script(), Timeout: int(j.Timeout.Seconds()), When: OnSuccess}},
		Image:     expand(j.Image),
		Artifacts: j.Artifacts,
		Cache:     j.Cache,
		Features:  responseFeatures{TraceSections: true, FailureReasons: []Reason{ScriptFailure, SystemFailure, Timeout}},
	}
	for _, s := range j.Steps {
		out.Steps = append(out.Steps, responseStep{Name: s.Name, Script: s.Script, Timeout: int(j.Timeout.Seconds()), When: OnSuccess})
	}
	if len(j.AfterScript) > 0 {
		out.Steps = append(out.Steps, responseStep{Name: "after_script", Script: j.AfterScript, Timeout: int(j.Timeout.Seconds()), When: Always, AllowFailure: true})
	}
	for _, s := range j.Services {
		out.Services = append(out.Services, expand(s))
	}
	for _, c := range j.Credentials {
		out.Credentials = append(out.Credentials, responseCredential{"registry", c.URL, c.Username, c.Password})
	}
	for _, d := range j.Dependencies {
		dep := responseDependency{ID: d.ID, Token: d.Token, Name: d.Name}
		dep.ArtifactsFile.Filename = d.File
		out.Dependencies = append(out.Dependencies, dep)
	}
	var line bytes.Buffer
	err := json.NewEncoder(&line).Encode(out)
	return line.Bytes(), err
}

// since is a field that only gitlab-runners of this version and later have.
func since[T any](version int, r Runner, value T) *T {
	if r.Version < version {
		return nil
	}
	return &value
}

// writeResponse puts JOB_RESPONSE_FILE where only its owner can read it. The
// hook sees it first, and without a result there is no file.
func (r *Running) writeResponse(t *try) error {
	content, err := r.response(r.variables(t))
	if err != nil {
		return fmt.Errorf("write job response: %w", err)
	}
	if r.runner.Response != nil {
		if content = r.runner.Response(content); content == nil {
			return nil
		}
	}
	return os.WriteFile(t.responseFile(), content, 0o600)
}

// services is CUSTOM_ENV_CI_JOB_SERVICES: a JSON list of the services, with one alias
// of each. Their variables are there since version 19, with references to the job's
// variables and to each other replaced.
func (r *Running) services(vs variables) string {
	type service struct {
		Name       string            `json:"name"`
		Alias      string            `json:"alias"`
		Entrypoint []string          `json:"entrypoint"`
		Command    []string          `json:"command"`
		Variables  map[string]string `json:"variables,omitempty"`
	}
	var list []service
	for _, s := range r.job.Services {
		next := service{Name: vs.expand(s.Name), Entrypoint: s.Entrypoint, Command: s.Command}
		if aliases := strings.FieldsFunc(vs.expand(s.Alias), betweenAliases); len(aliases) > 0 {
			next.Alias = aliases[0]
		}
		if r.runner.Version >= 19 {
			next.Variables = map[string]string{}
			known := slices.Concat(vs, s.Variables)
			for _, v := range s.Variables {
				if !v.Raw {
					v.Value = known.expand(v.Value)
				}
				next.Variables[v.Key] = v.Value
			}
		}
		list = append(list, next)
	}
	if list == nil {
		return ""
	}
	text, _ := json.Marshal(list) // strings always marshal
	return string(text)
}

// betweenAliases tells whether a character separates the aliases of a service.
func betweenAliases(c rune) bool { return c == ',' || unicode.IsSpace(c) }
