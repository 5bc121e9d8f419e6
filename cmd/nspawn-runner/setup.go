package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
)

func toml(o *options) *cobra.Command {
	var name, url, tokenFile, defaultImage string
	c := &cobra.Command{
		Use: "toml", Short: "Print the block for gitlab-runner's config.toml",
		Args: cobra.NoArgs,
		RunE: o.on(func(_ context.Context, h *runner.Host, _ []string) error {
			return h.TOML(name, url, tokenFile, defaultImage)
		}),
	}
	c.Flags().StringVar(&name, "name", "", "name of the runner")
	c.Flags().StringVar(&url, "url", "", "URL of your GitLab")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file that holds the runner's authentication token")
	c.Flags().StringVar(&defaultImage, "default-image", "", "the image of jobs that name none")
	return c
}

func version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version",
		Args: cobra.NoArgs,
		Run:  func(*cobra.Command, []string) { fmt.Println("nspawn-runner " + runner.Version) },
	}
}
