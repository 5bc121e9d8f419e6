package gitlab

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// jobFile is a job as a person writes it down: the keys of one job in
// .gitlab-ci.yml, and some of what GitLab knows besides.
type jobFile struct {
	ID         int64         `yaml:"id"`
	Name       string        `yaml:"name"`
	Project    string        `yaml:"project"`
	Repository string        `yaml:"repository"`
	Ref        string        `yaml:"ref"`
	Protected  *bool         `yaml:"protected"`
	Timeout    time.Duration `yaml:"timeout"`

	Image        imageKey          `yaml:"image"`
	Services     []imageKey        `yaml:"services"`
	Variables    variablesKey      `yaml:"variables"`
	BeforeScript linesKey          `yaml:"before_script"`
	Script       linesKey          `yaml:"script"`
	AfterScript  linesKey          `yaml:"after_script"`
	Artifacts    artifactsKey      `yaml:"artifacts"`
	Cache        listKey[cacheKey] `yaml:"cache"`
}

// ParseJob reads a job file. Unknown keys are errors.
func ParseJob(text []byte) (Job, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return Job{}, fmt.Errorf("job file: %w", err)
	}
	if len(document.Content) == 0 {
		return Job{}, errors.New("job file: empty")
	}
	job, err := parseJob(document.Content[0])
	if err != nil {
		return Job{}, fmt.Errorf("job file: %w", err)
	}
	return job, nil
}

// parseJob reads the mapping of a job.
func parseJob(mapping *yaml.Node) (Job, error) {
	var f jobFile
	if err := decode(mapping, &f); err != nil {
		return Job{}, err
	}
	if len(f.Script) == 0 {
		return Job{}, errors.New("script: missing")
	}
	job := Job{
		ID: f.ID, Name: f.Name, Timeout: f.Timeout,
		Project:   Project{Path: f.Project},
		Git:       Git{URL: f.Repository, Ref: f.Ref, Protected: f.Protected},
		Image:     Image(f.Image),
		Variables: f.Variables, BeforeScript: f.BeforeScript, Script: f.Script, AfterScript: f.AfterScript,
	}
	for _, s := range f.Services {
		job.Services = append(job.Services, Image(s))
	}
	for _, c := range f.Cache {
		job.Cache = append(job.Cache, Cache(c))
	}
	if a := Artifact(f.Artifacts); len(a.Paths) > 0 || a.Untracked {
		a.Type, a.Format = "archive", "zip"
		job.Artifacts = append(job.Artifacts, a)
	}
	return job, nil
}

// decode fills a struct from a mapping that has no keys but its own.
func decode(node *yaml.Node, into any) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: not a mapping", node.Line)
	}
	var known []string
	for field := range reflect.TypeOf(into).Elem().Fields() {
		known = append(known, field.Tag.Get("yaml"))
	}
	for i := 0; i < len(node.Content); i += 2 {
		if key := node.Content[i]; !slices.Contains(known, key.Value) {
			return fmt.Errorf("line %d: unknown key %q", key.Line, key.Value)
		}
	}
	return node.Decode(into)
}

// imageKey is a name, or a mapping with one.
type imageKey Image

// UnmarshalYAML takes a name for the whole image.
func (k *imageKey) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		return node.Decode(&k.Name)
	}
	var fields struct {
		Name       string        `yaml:"name"`
		Alias      string        `yaml:"alias"`
		Entrypoint linesKey      `yaml:"entrypoint"`
		Command    linesKey      `yaml:"command"`
		PullPolicy linesKey      `yaml:"pull_policy"`
		Variables  variablesKey  `yaml:"variables"`
		Docker     dockerKey     `yaml:"docker"`
		Kubernetes kubernetesKey `yaml:"kubernetes"`
	}
	if err := decode(node, &fields); err != nil {
		return err
	}
	*k = imageKey{
		Name: fields.Name, Alias: fields.Alias, Entrypoint: fields.Entrypoint,
		Command: fields.Command, PullPolicy: fields.PullPolicy, Variables: fields.Variables,
		Executor: ImageExecutor{Docker: DockerOptions(fields.Docker), Kubernetes: KubernetesOptions(fields.Kubernetes)},
	}
	return nil
}

// dockerKey is what an image asks of the docker executor.
type dockerKey DockerOptions

// UnmarshalYAML knows the keys of docker.
func (k *dockerKey) UnmarshalYAML(node *yaml.Node) error { return decode(node, (*DockerOptions)(k)) }

// kubernetesKey is what an image asks of the kubernetes executor.
type kubernetesKey KubernetesOptions

// UnmarshalYAML knows the keys of kubernetes.
func (k *kubernetesKey) UnmarshalYAML(node *yaml.Node) error {
	return decode(node, (*KubernetesOptions)(k))
}

// linesKey is one text, or a list of texts and of such lists.
type linesKey []string

// UnmarshalYAML flattens lists in the list.
func (k *linesKey) UnmarshalYAML(node *yaml.Node) error {
	var lists listKey[yaml.Node]
	if err := node.Decode(&lists); err != nil {
		return err
	}
	for _, element := range lists {
		if element.Kind == yaml.SequenceNode {
			var inner linesKey
			if err := element.Decode(&inner); err != nil {
				return err
			}
			*k = append(*k, inner...)
			continue
		}
		var line string
		if err := element.Decode(&line); err != nil {
			return err
		}
		*k = append(*k, line)
	}
	return nil
}

// listKey is a list, or its only element.
type listKey[T any] []T

// UnmarshalYAML makes a list of a single element.
func (k *listKey[T]) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.SequenceNode {
		return node.Decode((*[]T)(k))
	}
	var only T
	if err := node.Decode(&only); err != nil {
		return err
	}
	*k = listKey[T]{only}
	return nil
}

// variablesKey is a mapping of names to values, or to mappings that say more.
// Its order is that of the file.
type variablesKey []Variable

// UnmarshalYAML keeps the order of the file.
func (k *variablesKey) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: variables: not a mapping", node.Line)
	}
	for i := 0; i < len(node.Content); i += 2 {
		v := Variable{Key: node.Content[i].Value, Public: true}
		value := node.Content[i+1]
		if value.Kind == yaml.ScalarNode {
			v.Value = value.Value
			*k = append(*k, v)
			continue
		}
		var fields struct {
			Value  string `yaml:"value"`
			File   bool   `yaml:"file"`
			Masked bool   `yaml:"masked"`
			Raw    bool   `yaml:"raw"`
		}
		if err := decode(value, &fields); err != nil {
			return err
		}
		v.Value, v.File, v.Masked, v.Raw = fields.Value, fields.File, fields.Masked, fields.Raw
		*k = append(*k, v)
	}
	return nil
}

// artifactsKey is the one archive that a job file can ask for.
type artifactsKey Artifact

// UnmarshalYAML knows the keys of artifacts.
func (k *artifactsKey) UnmarshalYAML(node *yaml.Node) error {
	var fields struct {
		Name      string   `yaml:"name"`
		Untracked bool     `yaml:"untracked"`
		Paths     linesKey `yaml:"paths"`
		Exclude   linesKey `yaml:"exclude"`
		When      whenKey  `yaml:"when"`
		ExpireIn  string   `yaml:"expire_in"`
	}
	if err := decode(node, &fields); err != nil {
		return err
	}
	*k = artifactsKey{
		Name: fields.Name, Untracked: fields.Untracked, Paths: fields.Paths,
		Exclude: fields.Exclude, When: When(fields.When), ExpireIn: fields.ExpireIn,
	}
	return nil
}

// cacheKey is one of its caches.
type cacheKey Cache

// UnmarshalYAML knows the keys of one cache.
func (k *cacheKey) UnmarshalYAML(node *yaml.Node) error {
	var fields struct {
		Key          string   `yaml:"key"`
		Untracked    bool     `yaml:"untracked"`
		Policy       string   `yaml:"policy"`
		Paths        linesKey `yaml:"paths"`
		When         whenKey  `yaml:"when"`
		FallbackKeys linesKey `yaml:"fallback_keys"`
	}
	if err := decode(node, &fields); err != nil {
		return err
	}
	*k = cacheKey{
		Key: fields.Key, Untracked: fields.Untracked, Policy: fields.Policy,
		Paths: fields.Paths, When: When(fields.When), FallbackKeys: fields.FallbackKeys,
	}
	return nil
}

// whenKey is an outcome that is one.
type whenKey When

// UnmarshalYAML knows all outcomes.
func (k *whenKey) UnmarshalYAML(node *yaml.Node) error {
	all := []string{string(OnSuccess), string(OnFailure), string(Always)}
	if !slices.Contains(all, node.Value) {
		return fmt.Errorf("line %d: when: %q: not one of %s", node.Line, node.Value, strings.Join(all, ", "))
	}
	*k = whenKey(node.Value)
	return nil
}
