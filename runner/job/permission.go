package job

import (
	"fmt"
	"path"
	"strings"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
)

// Any job can name any image. So an image that gives its jobs more than others, such as a device of
// the host, needs permission: --allow-image in prepare_args of a runner, which no job can write.

// Gives lists what an image gives its jobs that needs permission. It completes "image NAME ...".
func (d *Driver) Gives(settings config.Config) []string {
	var all []string
	if settings.Privileged {
		all = append(all, "is privileged")
	}
	if len(settings.Devices) > 0 {
		all = append(all, "has devices of the host")
	}
	if writable(settings.Binds) != nil {
		all = append(all, "has writable binds")
	}
	if settings.FUSE && !d.Config.FUSE {
		all = append(all, "has /dev/fuse")
	}
	if settings.Nesting && !d.Config.Nesting {
		all = append(all, "can hold containers")
	}
	if settings.CloudMetadata && !d.Config.CloudMetadata {
		all = append(all, "reaches the cloud's metadata")
	}
	return all
}

// Permission are the images that need permission and that a runner's jobs may have: patterns as in
// path.Match.
type Permission []string

// everything permits all images: for root of this host.
var everything = Permission{"*"}

// Check returns an error if a pattern is malformed.
func (p Permission) Check() error {
	for _, pattern := range p {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("--allow-image=%s: %w", pattern, err)
		}
	}
	return nil
}

// Allows says whether a runner's jobs may have an image.
func (p Permission) Allows(name string) bool {
	for _, pattern := range p {
		if fits, _ := path.Match(pattern, name); fits {
			return true
		}
	}
	return false
}

// permit refuses a job an image that its runner does not allow.
func (d *Driver) permit(name string, settings config.Config, may Permission) error {
	given := d.Gives(settings)
	if given == nil || may.Allows(name) {
		return nil
	}
	return &gitlab.BuildFailure{Code: 1, Err: fmt.Errorf("image %s %s, and this runner does not allow that: "+
		"its administrator can add \"--allow-image=%s\" to prepare_args in gitlab-runner's config.toml", name, strings.Join(given, ", "), name)}
}
