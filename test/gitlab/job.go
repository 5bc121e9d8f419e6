package gitlab

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Job is what GitLab hands to gitlab-runner. The zero value of every field
// stands for something sensible, so that a test names only what it is about.
type Job struct {
	ID         int64  // zero is 1001
	Token      string // empty is one derived from the id
	Name       string // empty is "job"
	Stage      string // of the pipeline, empty is "test"
	PipelineID int64  // zero is 1
	UserID     int64  // zero is 1
	ServerURL  string // of GitLab, empty is https://gitlab.example
	Project    Project
	Git        Git

	Image    Image
	Services []Image
	// Credentials are those of registries that GitLab sends with the job.
	Credentials []Credential

	// Variables are the job's own. They may be named like GitLab's, and then
	// the driver's environment and the script see the job's value.
	Variables []Variable
	// Predefined are GitLab's own: each replaces the one GitLab would send
	// under that name, or is sent in addition.
	Predefined []Variable

	BeforeScript, Script, AfterScript []string
	// Steps are further ones behind the script, as a release: makes one. Each
	// is a sub-stage step_NAME.
	Steps []Step

	Artifacts    []Artifact
	Cache        []Cache
	Dependencies []Dependency

	Timeout time.Duration // of the job, zero is an hour

	// ConcurrentID and ConcurrentProjectID tell jobs apart that one
	// gitlab-runner runs side by side.
	ConcurrentID, ConcurrentProjectID int
}

// Project is where the job lives.
type Project struct {
	ID          int64  // zero is 7
	Path        string // with its group, empty is "group/project"
	NamespaceID int64  // zero is 3
}

// Git is the commit that the job is about.
type Git struct {
	// URL is cloned by get_sources. Without one, get_sources only makes the
	// project's directory, as with GIT_STRATEGY none, and the driver is told
	// a URL that leads nowhere.
	URL       string
	Ref       string // empty is "main"
	RefType   string // "branch" or "tag", empty is branch
	SHA       string // empty is, when cloning, whatever Ref points to
	BeforeSHA string
	Depth     int   // of the fetch, zero is everything
	Protected *bool // nil is what a GitLab before 18.3 says: nothing
}

// Image is a job's image or one of its services.
type Image struct {
	Name       string        `json:"name"`
	Alias      string        `json:"alias,omitempty"` // several are separated by commas or spaces
	Command    []string      `json:"command,omitempty"`
	Entrypoint []string      `json:"entrypoint,omitempty"`
	Variables  []Variable    `json:"variables,omitempty"`
	PullPolicy []string      `json:"pull_policy,omitempty"`
	Executor   ImageExecutor `json:"executor_opts"`
}

// ImageExecutor is what an image asks of certain executors.
type ImageExecutor struct {
	Docker     DockerOptions     `json:"docker"`
	Kubernetes KubernetesOptions `json:"kubernetes"`
}

// DockerOptions are for the docker executor.
type DockerOptions struct {
	Platform string `json:"platform,omitempty" yaml:"platform"`
	User     string `json:"user,omitempty" yaml:"user"`
}

// KubernetesOptions are for the kubernetes executor.
type KubernetesOptions struct {
	User string `json:"user,omitempty" yaml:"user"`
}

// Credential lets the job's images be pulled from a registry.
type Credential struct {
	URL      string // the registry's host, with its port if it has one
	Username string
	Password string
}

// Step is a named list of script lines.
type Step struct {
	Name   string
	Script []string
}

// When says for which outcome of a job something is kept.
type When string

// The values of when:, of which the empty one is on_success.
const (
	OnSuccess When = "on_success"
	OnFailure When = "on_failure"
	Always    When = "always"
)

// applies tells whether something is kept for a job with this outcome. A
// canceled job neither succeeded nor failed.
func (w When) applies(outcome Status) bool {
	return w == Always ||
		outcome == Success && (w == "" || w == OnSuccess) ||
		outcome == Failed && w == OnFailure
}

// Artifact is one archive of files that the job leaves in GitLab.
type Artifact struct {
	Name      string   `json:"name"`
	Untracked bool     `json:"untracked"`
	Paths     []string `json:"paths"`
	Exclude   []string `json:"exclude"`
	When      When     `json:"when"`
	Type      string   `json:"artifact_type"`
	Format    string   `json:"artifact_format"`
	ExpireIn  string   `json:"expire_in"`
}

// Cache is one archive of files that the next job of the project may find.
type Cache struct {
	Key          string   `json:"key"` // empty is the job's name and ref
	Untracked    bool     `json:"untracked"`
	Policy       string   `json:"policy"` // "pull", "push", empty is both
	Paths        []string `json:"paths"`
	When         When     `json:"when"`
	FallbackKeys []string `json:"fallback_keys"`
}

// Dependency is an earlier job whose artifacts this one downloads.
type Dependency struct {
	ID    int64
	Token string
	Name  string
	File  string // name of its archive, empty when it left none
}

// complete fills in everything that was left out.
func (j Job) complete() Job {
	j.ID = cmp.Or(j.ID, 1001)
	j.Token = cmp.Or(j.Token, "glcbt-simulated-"+strconv.FormatInt(j.ID, 10))
	j.Name = cmp.Or(j.Name, "job")
	j.Stage = cmp.Or(j.Stage, "test")
	j.PipelineID = cmp.Or(j.PipelineID, 1)
	j.UserID = cmp.Or(j.UserID, 1)
	j.ServerURL = strings.TrimSuffix(cmp.Or(j.ServerURL, "https://gitlab.example"), "/")
	j.Project.ID = cmp.Or(j.Project.ID, 7)
	j.Project.Path = cmp.Or(j.Project.Path, "group/project")
	j.Project.NamespaceID = cmp.Or(j.Project.NamespaceID, 3)
	j.Git.Ref = cmp.Or(j.Git.Ref, "main")
	j.Git.RefType = cmp.Or(j.Git.RefType, "branch")
	j.Timeout = cmp.Or(j.Timeout, time.Hour)
	return j
}

// repositoryURL is what GitLab says the sources come from, with the token.
func (j Job) repositoryURL() string {
	if j.Git.URL != "" {
		return j.Git.URL
	}
	scheme, host, _ := strings.Cut(j.ServerURL, "://")
	return scheme + "://gitlab-ci-token:" + j.Token + "@" + host + "/" + j.Project.Path + ".git"
}

// predefined are GitLab's own variables of the job.
func (j Job) predefined() []Variable {
	_, host, _ := strings.Cut(j.ServerURL, "://")
	group, name := path.Split(j.Project.Path)
	variables := []Variable{
		{Key: "CI", Value: "true", Public: true},
		{Key: "GITLAB_CI", Value: "true", Public: true},
		{Key: "CI_SERVER_URL", Value: j.ServerURL, Public: true},
		{Key: "CI_SERVER_HOST", Value: host, Public: true},
		{Key: "CI_PIPELINE_ID", Value: strconv.FormatInt(j.PipelineID, 10), Public: true},
		{Key: "CI_JOB_ID", Value: strconv.FormatInt(j.ID, 10), Public: true},
		{Key: "CI_JOB_NAME", Value: j.Name, Public: true},
		{Key: "CI_JOB_STAGE", Value: j.Stage, Public: true},
		{Key: "CI_JOB_TOKEN", Value: j.Token, Masked: true},
		{Key: "CI_PROJECT_ID", Value: strconv.FormatInt(j.Project.ID, 10), Public: true},
		{Key: "CI_PROJECT_NAME", Value: name, Public: true},
		{Key: "CI_PROJECT_PATH", Value: j.Project.Path, Public: true},
		{Key: "CI_PROJECT_NAMESPACE", Value: strings.TrimSuffix(group, "/"), Public: true},
		{Key: "CI_REPOSITORY_URL", Value: j.repositoryURL()},
		{Key: "CI_COMMIT_SHA", Value: j.Git.SHA, Public: true},
		{Key: "CI_COMMIT_BEFORE_SHA", Value: j.Git.BeforeSHA, Public: true},
		{Key: "CI_COMMIT_REF_NAME", Value: j.Git.Ref, Public: true},
		{Key: "CI_COMMIT_REF_PROTECTED", Value: strconv.FormatBool(j.Git.Protected != nil && *j.Git.Protected), Public: true},
		{Key: "GITLAB_USER_ID", Value: strconv.FormatInt(j.UserID, 10), Public: true},
	}
	for _, v := range j.Predefined {
		at := slices.IndexFunc(variables, func(other Variable) bool { return other.Key == v.Key })
		if at < 0 {
			variables = append(variables, v)
		} else {
			variables[at] = v
		}
	}
	return variables
}

// sentVariables are those in GitLab's response: its own first, then the
// job's, so that of two with one name the first is GitLab's word.
func (j Job) sentVariables() []Variable {
	return append(j.predefined(), j.Variables...)
}
