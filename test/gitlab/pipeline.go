package gitlab

import (
	"errors"
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"
)

// ParsePipelineJob reads one job of a .gitlab-ci.yml, with all that it extends.
// What says when and where a job runs is passed over: stage, tags, rules.
// Settings for all jobs, as default: and include:, are errors, like unknown keys.
func ParsePipelineJob(text []byte, name string) (Job, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return Job{}, fmt.Errorf("pipeline: %w", err)
	}
	if len(document.Content) == 0 || document.Content[0].Kind != yaml.MappingNode {
		return Job{}, errors.New("pipeline: not a mapping")
	}
	pipeline := document.Content[0]
	for i := 0; i < len(pipeline.Content); i += 2 {
		if key := pipeline.Content[i]; slices.Contains(forAllJobs, key.Value) {
			return Job{}, fmt.Errorf("pipeline: line %d: %s: is not simulated", key.Line, key.Value)
		}
	}
	whole, err := extended(pipeline, name, 0)
	if err != nil {
		return Job{}, fmt.Errorf("pipeline: %w", err)
	}
	whole = without(whole, "extends", "stage", "tags", "rules")
	job, err := parseJob(whole)
	if err != nil {
		return Job{}, fmt.Errorf("pipeline: job %q: %w", name, err)
	}
	job.Name = name
	return job, nil
}

// forAllJobs are the keys of a pipeline that change all its jobs.
var forAllJobs = []string{"default", "include", "variables", "image", "services", "cache", "before_script", "after_script"}

// extended is a job with what it extends merged in.
func extended(pipeline *yaml.Node, name string, depth int) (*yaml.Node, error) {
	job := value(pipeline, name)
	if job == nil {
		return nil, fmt.Errorf("there is no job %q", name)
	}
	if job.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: job %q: not a mapping", job.Line, name)
	}
	// GitLab's own limit.
	if depth > 11 {
		return nil, fmt.Errorf("line %d: job %q: extends: nested too deep", job.Line, name)
	}
	whole := &yaml.Node{Kind: yaml.MappingNode, Line: job.Line}
	if extends := value(job, "extends"); extends != nil {
		var bases linesKey
		if err := extends.Decode(&bases); err != nil {
			return nil, err
		}
		for _, base := range bases {
			node, err := extended(pipeline, base, depth+1)
			if err != nil {
				return nil, err
			}
			whole = merged(whole, node)
		}
	}
	return merged(whole, job), nil
}

// merged is two mappings in one, the second one winning. Mappings in them are
// merged, everything else is replaced: lists too.
func merged(under, over *yaml.Node) *yaml.Node {
	whole := under
	for i := 0; i < len(over.Content); i += 2 {
		key, node := over.Content[i], over.Content[i+1]
		was := value(whole, key.Value)
		if was != nil && was.Kind == yaml.MappingNode && node.Kind == yaml.MappingNode {
			node = merged(was, node)
		}
		whole = without(whole, key.Value)
		whole.Content = append(whole.Content, key, node)
	}
	return whole
}

// value is what a mapping has under a key, or nil.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// without is a mapping without some of its keys.
func without(mapping *yaml.Node, keys ...string) *yaml.Node {
	rest := &yaml.Node{Kind: yaml.MappingNode, Line: mapping.Line}
	for i := 0; i < len(mapping.Content); i += 2 {
		if !slices.Contains(keys, mapping.Content[i].Value) {
			rest.Content = append(rest.Content, mapping.Content[i], mapping.Content[i+1])
		}
	}
	return rest
}
