package gitlab

// Registry is what a job has for registries of images.
type Registry struct {
	// DockerConfig is its variable DOCKER_AUTH_CONFIG, "" if it has none: text of the job's
	// choice, in the format of docker's config.json.
	DockerConfig string
	// Credentials are those that GitLab gives to the job, for its own registry and its proxy.
	Credentials []Credential
}

// Credential is one of them.
type Credential struct {
	// Server is HOST or HOST:PORT, and maybe a path.
	Server, Username, Password string
}

// dockerConfig is the variable.
const dockerConfig = "DOCKER_AUTH_CONFIG"

// credential is one in the response.
type credential struct {
	Type     string `json:"type"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// registryOf takes it from the response. The environment has the variable's value with
// references in it replaced, or the path of a file that is in the job's machine only.
func registryOf(variables []variable, credentials []credential, env Env) Registry {
	var r Registry
	for _, v := range variables { // of two with one name, the last one counts
		if v.Key == dockerConfig {
			if r.DockerConfig = v.Value; !v.File && !v.Raw {
				r.DockerConfig = env("CUSTOM_ENV_" + dockerConfig)
			}
		}
	}
	for _, c := range credentials {
		if c.Type == "registry" && c.URL != "" {
			r.Credentials = append(r.Credentials, Credential{Server: c.URL, Username: c.Username, Password: c.Password})
		}
	}
	return r
}
