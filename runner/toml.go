package runner

import (
	"fmt"
	"os"
	"strings"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/job"
)

// TOML is a complete block for gitlab-runner's config.toml. The token is read from a
// file, since what is on a command line everybody can see.
func (h *Host) TOML(name, url, tokenFile, defaultImage string, allowed job.Permission) (string, error) {
	r := gitlab.Registration{Driver: h.program, Name: name, URL: url, DefaultImage: defaultImage, Allowed: allowed}
	if h.configFile != "" {
		r.Args = []string{"--config", h.configFile}
	}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		r.Token = strings.TrimSpace(string(token))
	}
	return gitlab.TOML(r), nil
}

// GitLabConfig is the driver's configuration, which gitlab-runner asks for in its stage
// config.
func GitLabConfig() []byte { return gitlab.ConfigJSON(Version) }
