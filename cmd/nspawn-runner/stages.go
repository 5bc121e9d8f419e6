package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/job"
)

// stage makes the command of one of gitlab-runner's stages, whose exit codes
// are gitlab-runner's.
func stage(o *options, use, short string, args cobra.PositionalArgs, do func(context.Context, *runner.Host, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Stage " + short, Args: args,
		Annotations: map[string]string{"exit": exitAsStage},
		RunE:        o.on(do),
	}
}

// laterStage is stage of one that comes after prepare, and works without a configuration.
func laterStage(o *options, use, short string, args cobra.PositionalArgs, do func(context.Context, *runner.Host, []string) error) *cobra.Command {
	c := stage(o, use, short, args, do)
	c.RunE = o.onHost(true, do)
	return c
}

// ofJob gives a stage the flag that names its job.
func ofJob(o *options, c *cobra.Command, s *job.Stage) *cobra.Command {
	c.Flags().StringVar(&s.ID, "id", "", "`id` of the job (default: $CUSTOM_ENV_CI_JOB_ID)")
	completeFlag(c, "id", completeMachines(o))
	return c
}

func gitlabConfig(o *options) *cobra.Command {
	return stage(o, "gitlab-config", "config: print the driver's configuration", cobra.NoArgs,
		func(context.Context, *runner.Host, []string) error {
			fault.Here("config: about to answer")
			_, err := os.Stdout.Write(runner.GitLabConfig())
			return err
		})
}

func prepare(o *options) *cobra.Command {
	var s job.Stage
	c := stage(o, "prepare [IMAGE]", "prepare: start a machine", cobra.MaximumNArgs(1),
		func(ctx context.Context, h *runner.Host, args []string) error {
			s.Image, s.Log = first(args), os.Stderr
			return h.Jobs.Prepare(ctx, s)
		})
	c.Long = "Start the machine of a job, and those of its services. gitlab-runner's variables say which\n" +
		"image that is; IMAGE overrides it. cleanup removes the machines."
	c.Example = "  nspawn-runner prepare --id 7 bookworm\n  nspawn-runner run --id 7 build.sh\n  nspawn-runner cleanup --id 7"
	c.Flags().StringVar(&s.DefaultImage, "default-image", "", "`image` of jobs that name none")
	c.ValidArgsFunction = firstArgument(completeImages(o))
	completeFlag(c, "default-image", completeImages(o))
	allowImage(o, c, &s.Allowed)
	return ofJob(o, c, &s)
}

// allowImage gives a command the flag that allows jobs images which give more access to the host.
func allowImage(o *options, c *cobra.Command, allowed *job.Permission) {
	c.Flags().StringArrayVar((*[]string)(allowed), "allow-image", nil,
		"`pattern` of names of images that jobs may use although these give more access to the host than others, such as devices; may be repeated")
	completeFlag(c, "allow-image", completeImages(o))
	c.PreRunE = func(*cobra.Command, []string) error { return allowed.Check() }
}

func run(o *options) *cobra.Command {
	var s job.Stage
	c := laterStage(o, "run SCRIPT [LABEL]", "run: execute a script in the machine", cobra.RangeArgs(1, 2),
		func(ctx context.Context, h *runner.Host, args []string) error {
			return h.Jobs.Run(ctx, s, args[0], strings.Join(args[1:], ""), os.Stdout, os.Stderr)
		})
	c.Flags().StringVar(&s.Shell, "shell", "", shellUsage)
	c.ValidArgsFunction = completeFiles
	return ofJob(o, c, &s)
}

const shellUsage = "`shell` that executes the script (default: the image's nspawn_runner_shell, else /bin/bash)"

func cleanup(o *options) *cobra.Command {
	var s job.Stage
	c := laterStage(o, "cleanup", "cleanup: remove the machine", cobra.NoArgs,
		func(ctx context.Context, h *runner.Host, _ []string) error {
			// A signal does not stop a cleanup: when gitlab-runner's service
			// stops, every process of it gets one.
			return h.Jobs.Cleanup(context.WithoutCancel(ctx), s)
		})
	return ofJob(o, c, &s)
}
