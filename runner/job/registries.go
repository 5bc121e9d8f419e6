package job

import (
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/oci"
)

// keychain returns the credentials that a job has for registries. They come in the order of
// gitlab-runner: the job's variable DOCKER_AUTH_CONFIG, docker's file of the user who runs this
// program, and what GitLab gives to each job. If one cannot be read, keychain warns and leaves it out.
func (d *Driver) keychain(job gitlab.Job) oci.Keychain {
	var all oci.Keychain
	if text := job.Registry.DockerConfig; text != "" {
		keys, err := oci.ParseKeychain([]byte(text))
		if err != nil {
			d.Note("warning: the variable DOCKER_AUTH_CONFIG: %v", err)
		}
		all = append(all, keys...)
	}
	keys, err := oci.UserKeychain(d.Env)
	if err != nil {
		d.Note("warning: credentials of this host's user: %v", err)
	}
	all = append(all, keys...)
	for _, c := range job.Registry.Credentials {
		all = append(all, oci.Credential{Server: c.Server, Username: c.Username, Password: c.Password})
	}
	return all
}
