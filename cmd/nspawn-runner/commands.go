package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner"
	"nspawn-runner/runner/machine"
)

// options are the flags that every command has.
type options struct {
	verbose, debug bool
	config         string
}

// host makes the runner for a command.
func (o *options) host() (*runner.Host, error) {
	h, err := runner.New(o.config)
	if err != nil {
		return nil, err
	}
	if o.verbose || o.debug {
		h.Log = o.logger()
	}
	return h, nil
}

// logger prints lines to stderr: at a terminal with the time of day, which
// GitLab's job log adds by itself; with --debug, with the time since the start.
func (o *options) logger() func(format string, args ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		stamp := ""
		switch {
		case o.debug:
			stamp = fmt.Sprintf("[%4d ms] ", time.Since(start).Milliseconds())
		case isTerminal(os.Stderr):
			stamp = time.Now().Format("15:04:05 ")
		}
		fmt.Fprintf(os.Stderr, stamp+format+"\n", args...)
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// commands is the whole command line.
func commands(ctx context.Context) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "nspawn-runner",
		Short: "Run each GitLab CI job in its own booted Debian system",
		Long: "nspawn-runner runs each job of GitLab CI in its own throw-away, fully booted\n" +
			"Debian system under systemd-nspawn. It is a driver for gitlab-runner's custom\n" +
			"executor; 'nspawn-runner toml' prints what to put into its config.toml.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVarP(&o.verbose, "verbose", "v", false, "say what is done")
	root.PersistentFlags().BoolVar(&o.debug, "debug", false, "say what is done, and how long it took")
	root.PersistentFlags().StringVar(&o.config, "config", "", "configuration file (default /etc/nspawn-runner.yaml)")
	root.AddGroup(
		&cobra.Group{ID: "images", Title: "Images:"},
		&cobra.Group{ID: "machines", Title: "Machines:"},
		&cobra.Group{ID: "stages", Title: "What gitlab-runner calls:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"},
	)
	root.SetHelpCommandGroupID("setup")
	root.SetCompletionCommandGroupID("setup")
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add("images", chrootCreate(&o), chrootList(&o), chrootLogin(&o), chrootMaintenance(&o))
	add("machines", try(&o), machines(&o))
	add("stages", gitlabConfig(&o), prepare(&o), run(&o), cleanup(&o))
	add("setup", toml(&o), version())
	root.AddCommand(boot(), emptyTrash())
	return root
}

// completeImages offers the names of images to the shell.
func completeImages(o *options) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if h, err := o.host(); err == nil && len(args) == 0 {
			return h.ImageNames(), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func chrootCreate(o *options) *cobra.Command {
	var suite, defaultImage string
	c := &cobra.Command{
		Use:               "chroot-create [IMAGE]",
		Short:             "Create an image's chroot, from its playbook if it has one",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeImages(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			name, err := h.NameOf(first(args), defaultImage)
			if err != nil {
				return err
			}
			return h.ChrootCreate(cmd.Context(), name, suite)
		},
	}
	c.Flags().StringVar(&suite, "suite", "", "Debian suite (default: the playbook's, else unstable)")
	c.Flags().StringVar(&defaultImage, "default-image", "", "the image when none is named")
	return c
}

func chrootList(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "chroot-list",
		Short: "List images: chroots, and playbooks without one",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			return h.ChrootList(asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func chrootLogin(o *options) *cobra.Command {
	var discard bool
	var defaultImage string
	c := &cobra.Command{
		Use:               "chroot-login [IMAGE]",
		Short:             "Open a shell in a copy of a chroot, and publish it when the shell ends with 0",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeImages(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			name, err := h.NameOf(first(args), defaultImage)
			if err != nil {
				return err
			}
			return h.ChrootLogin(cmd.Context(), name, discard)
		},
	}
	c.Flags().BoolVar(&discard, "discard", false, "throw away what the shell changes")
	c.Flags().StringVar(&defaultImage, "default-image", "", "the image when none is named")
	return c
}

func chrootMaintenance(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "chroot-maintenance [IMAGE]",
		Short:             "Run the playbooks of all images, or of one, and create what is missing",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeImages(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			return h.ChrootMaintenance(cmd.Context(), first(args))
		},
	}
}

func try(o *options) *cobra.Command {
	shell := "/bin/bash"
	c := &cobra.Command{
		Use:   "try IMAGE [SCRIPT | -- COMMAND...]",
		Short: "Run a script or a command in a machine of its own, and end with its exit code",
		Long: "Run a script, a command, or what comes on standard input, in a machine of its\n" +
			"own that lasts no longer, and end with its exit code.",
		Example:           "  nspawn-runner try bookworm build.sh\n  nspawn-runner try bookworm -- uname -a\n  echo 'id; df -h /' | nspawn-runner try bookworm",
		Args:              cobra.MinimumNArgs(1),
		Annotations:       map[string]string{"exit": exitAsTry},
		ValidArgsFunction: completeImages(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			dash := cmd.ArgsLenAtDash()
			var script io.Reader = os.Stdin
			switch {
			case dash == 1 && len(args) > 1:
				script = strings.NewReader(runner.CommandScript(args[1:]))
			case dash == 1 || dash > 1 || len(args) > 2:
				return fmt.Errorf("want IMAGE, then a SCRIPT or -- COMMAND")
			case len(args) == 2 && args[1] != "-":
				file, err := os.Open(args[1])
				if err != nil {
					return fmt.Errorf("script: %w", err)
				}
				defer file.Close()
				script = file
			}
			return h.Try(cmd.Context(), args[0], shell, script)
		},
	}
	c.Flags().StringVar(&shell, "shell", shell, "shell that executes the script")
	return c
}

func machines(o *options) *cobra.Command {
	c := &cobra.Command{Use: "machine", Short: "Show and enter the machines of running jobs"}
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List machines",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			return h.MachineList(asJSON)
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	login := &cobra.Command{
		Use:   "login ID",
		Short: "Open a shell in a machine",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			return h.MachineLogin(cmd.Context(), args[0])
		},
	}
	c.AddCommand(list, login)
	return c
}

// stage makes the command of one of gitlab-runner's stages. do gets a context
// that ends with a signal to stop.
func stage(use, short string, args cobra.PositionalArgs, o *options, s *runner.Stage, do func(context.Context, *runner.Host, []string) error) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: args,
		Annotations: map[string]string{"exit": exitAsStage},
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			return do(cmd.Context(), h, args)
		},
	}
	if s != nil {
		c.Flags().StringVar(&s.ID, "id", "", "id of the job (default: $CUSTOM_ENV_CI_JOB_ID)")
	}
	return c
}

func gitlabConfig(o *options) *cobra.Command {
	return stage("gitlab-config", "Stage config: print the driver's configuration", cobra.NoArgs, o, nil,
		func(_ context.Context, h *runner.Host, _ []string) error { return h.GitLabConfig() })
}

func prepare(o *options) *cobra.Command {
	var s runner.Stage
	c := stage("prepare [IMAGE]", "Stage prepare: start a machine", cobra.MaximumNArgs(1), o, &s,
		func(ctx context.Context, h *runner.Host, args []string) error {
			s.Image = first(args)
			return h.Prepare(ctx, s)
		})
	c.Flags().StringVar(&s.DefaultImage, "default-image", "", "the image of jobs that name none")
	return c
}

func run(o *options) *cobra.Command {
	var s runner.Stage
	c := stage("run SCRIPT [LABEL]", "Stage run: execute a script in the machine", cobra.RangeArgs(1, 2), o, &s,
		func(ctx context.Context, h *runner.Host, args []string) error {
			return h.Run(ctx, s, args[0], strings.Join(args[1:], ""))
		})
	c.Flags().StringVar(&s.Shell, "shell", "/bin/bash", "shell that executes the script")
	return c
}

func cleanup(o *options) *cobra.Command {
	var s runner.Stage
	return stage("cleanup", "Stage cleanup: make the machine gone", cobra.NoArgs, o, &s,
		func(ctx context.Context, h *runner.Host, _ []string) error {
			// A signal does not stop a cleanup: when gitlab-runner's service
			// stops, every process of it gets one.
			return h.Cleanup(context.WithoutCancel(ctx), s)
		})
}

func toml(o *options) *cobra.Command {
	var name, url, tokenFile, defaultImage string
	c := &cobra.Command{
		Use:   "toml",
		Short: "Print the block for gitlab-runner's config.toml",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			h, err := o.host()
			if err != nil {
				return err
			}
			return h.TOML(name, url, tokenFile, defaultImage)
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the runner")
	c.Flags().StringVar(&url, "url", "", "URL of your GitLab")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file that holds the runner's authentication token")
	c.Flags().StringVar(&defaultImage, "default-image", "", "the image of jobs that name none")
	return c
}

func version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { fmt.Println("nspawn-runner " + runner.Version) },
	}
}

// boot and emptyTrash are the commands of services that this program starts;
// nobody types them.
func boot() *cobra.Command {
	return &cobra.Command{
		Use: "boot DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return machine.Boot(args[0]) },
	}
}

func emptyTrash() *cobra.Command {
	return &cobra.Command{
		Use: "empty-trash DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return machine.EmptyTrash(cmd.Context(), args[0]) },
	}
}

// first is the first argument, or "".
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
