package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
	"nspawn-runner/runner/host"
)

// options are the flags that every command has.
type options struct {
	verbose, debug bool
	config         string

	display *display // once there is a host
}

// commands is the whole command line.
func commands() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "nspawn-runner",
		Short: "Run each GitLab CI job in its own booted Debian system",
		Long: "nspawn-runner runs each GitLab CI job in its own disposable Debian system, booted\n" +
			"under systemd-nspawn. It is a driver for the custom executor of gitlab-runner;\n" +
			"'nspawn-runner toml' prints the block for its config.toml.",
		Version:       runner.ThisBuild().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().BoolVarP(&o.verbose, "verbose", "v", false, "print each step")
	root.PersistentFlags().BoolVar(&o.debug, "debug", false, "print each step and how long it took")
	root.PersistentFlags().StringVar(&o.config, "config", "", "configuration `file` (default /etc/nspawn-runner.yaml)")
	root.AddGroup(
		&cobra.Group{ID: "images", Title: "Images:"},
		&cobra.Group{ID: "machines", Title: "Machines:"},
		&cobra.Group{ID: "stages", Title: "What gitlab-runner calls:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"},
	)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; '%s --help' lists the flags", err, c.CommandPath())
	})
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetHelpCommandGroupID("setup")
	root.SetCompletionCommandGroupID("setup")
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add("images", chrootCreate(&o), chrootList(&o), chrootLogin(&o), chrootMaintenance(&o),
		chrootShow(&o), chrootDiff(&o), chrootRollback(&o), chrootPrune(&o), chrootRemove(&o), registryImages(&o))
	add("machines", try(&o), machines(&o), top(&o))
	add("stages", gitlabConfig(&o), prepare(&o), run(&o), cleanup(&o))
	add("setup", toml(&o), doctorCommand(&o), gc(&o), metrics(&o), version())
	root.AddCommand(boot(), supervise(), start(), unpackLayers(), emptyTrash(), pruneCaches(&o))
	sayUsage(root)
	completeNothing(root)
	return root
}

// noCommand refuses what is not the name of a command below cmd, and says which may be meant.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q of %s%s", args[0], cmd.CommandPath(), hint)
}

// sayUsage has commands answer a wrong number of arguments with their usage.
func sayUsage(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		sayUsage(c)
		check := c.Args
		if check == nil || c.HasSubCommands() {
			continue
		}
		c.Args = func(c *cobra.Command, args []string) error {
			if check(c, args) != nil {
				return fmt.Errorf("wrong number of arguments; usage: %s", c.UseLine())
			}
			return nil
		}
	}
}

// on makes what a command does of what it does on a host.
func (o *options) on(do func(ctx context.Context, h *runner.Host, args []string) error) func(*cobra.Command, []string) error {
	return o.onHost(false, do)
}

// onHost is on, also for stages that come after prepare.
func (o *options) onHost(afterPrepare bool, do func(ctx context.Context, h *runner.Host, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		h, err := o.host(afterPrepare)
		if err != nil {
			return err
		}
		return do(cmd.Context(), h, args)
	}
}

// host makes the host for a command.
func (o *options) host(afterPrepare bool) (*runner.Host, error) {
	o.display = newDisplay(os.Stderr, o.stamp())
	return runner.New(runner.Options{
		ConfigFile: o.config, AfterPrepare: afterPrepare,
		Events: o.display.tell, Verbose: o.isVerbose(), Colours: host.IsTerminal(os.Stderr),
	})
}

func (o *options) isVerbose() bool { return o.verbose || o.debug }

// stamp begins lines that only --verbose and --debug show: at a terminal with the time of
// day, which GitLab's job log adds by itself; with --debug, with the time since the start.
func (o *options) stamp() func() string {
	start := time.Now()
	return func() string {
		switch {
		case o.debug:
			return fmt.Sprintf("[%4d ms] ", time.Since(start).Milliseconds())
		case host.IsTerminal(os.Stderr):
			return time.Now().Format("15:04:05 ")
		}
		return ""
	}
}

// streams are this program's own.
func streams() runner.Streams { return runner.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// first is the first argument, or "".
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
