package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/starter"
)

func try(o *options) *cobra.Command {
	var shell string
	c := &cobra.Command{
		Use:   "try IMAGE [SCRIPT | -- COMMAND...]",
		Short: "Run a script or a command in a new machine, and exit with its exit code",
		Long: "Start a machine, run a script, a command or standard input in it, remove the\n" +
			"machine, and exit with the exit code of the script.",
		Example:           "  nspawn-runner try bookworm build.sh\n  nspawn-runner try bookworm -- uname -a\n  echo 'id; df -h /' | nspawn-runner try bookworm",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeTry(o),
	}
	c.Flags().StringVar(&shell, "shell", "", shellUsage)
	c.RunE = o.on(func(ctx context.Context, h *runner.Host, args []string) error {
		script, err := tryScript(args, c.ArgsLenAtDash())
		if err != nil {
			return err
		}
		defer script.Close()
		return h.Jobs.Try(ctx, args[0], machine.Script{Source: script, Shell: shell, Label: "try", Stdout: os.Stdout, Stderr: os.Stderr})
	})
	return c
}

// tryScript is the script that try's arguments mean. dash is where the
// arguments had a --, or -1.
func tryScript(args []string, dash int) (io.ReadCloser, error) {
	switch {
	case dash == 1 && len(args) > 1:
		return io.NopCloser(strings.NewReader(job.CommandScript(args[1:]))), nil
	case dash >= 0 || len(args) > 2:
		return nil, fmt.Errorf("want IMAGE, then a SCRIPT or -- COMMAND")
	case len(args) == 2 && args[1] != "-":
		file, err := os.Open(args[1])
		if err != nil {
			return nil, fmt.Errorf("script: %w", err)
		}
		return file, nil
	}
	return os.Stdin, nil
}

func machines(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "machine", Short: "List the machines of running jobs, and open a shell in one",
		Args: noCommand, // else an unknown command is help, and success
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "List machines, with what they use",
		Long: "List the machines of jobs and of their services, with what they do and use, against their\n" +
			"limits. 'top' shows the same live.",
		Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error {
			return listMachines(ctx, h, asJSON)
		}),
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	login := &cobra.Command{
		Use: "login ID", Short: "Open a shell in a machine",
		Long: "Open a shell of root in a machine. Its ID is the number of the job; 'machine list' shows\n" +
			"all. The job goes on meanwhile.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArgument(completeMachines(o)),
		RunE: o.on(func(ctx context.Context, h *runner.Host, args []string) error {
			if !host.IsTerminal(os.Stdin) {
				return fmt.Errorf("machine login needs a terminal; 'nspawn-runner run --id %s SCRIPT' executes a script in a machine", args[0])
			}
			return h.Login(ctx, args[0], streams())
		}),
	}
	c.AddCommand(list, login)
	return c
}

// listMachines prints the machines there are, once.
func listMachines(ctx context.Context, h *runner.Host, asJSON bool) error {
	machines, err := h.Machines(ctx, nil)
	if err != nil || asJSON {
		return printed(machines, err)
	}
	return printMachines(os.Stdout, machines)
}

// boot, emptyTrash and pruneCaches are the commands of services that this program starts;
// nobody types them.
func boot() *cobra.Command {
	return &cobra.Command{
		Use: "boot DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return machine.Boot(args[0]) },
	}
}

// supervise is the command of the service of a machine that executes a program.
func supervise() *cobra.Command {
	return &cobra.Command{
		Use: "supervise DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			code, err := machine.Supervise(args[0])
			if err == nil && code != 0 {
				err = exitStatus(code)
			}
			return err
		},
	}
}

// start is what such a machine executes first.
func start() *cobra.Command {
	return &cobra.Command{
		Use: "start", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return exitStatus(starter.Run()) },
	}
}

func emptyTrash() *cobra.Command {
	return &cobra.Command{
		Use: "empty-trash DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return machine.EmptyTrash(cmd.Context(), args[0]) },
	}
}

func pruneCaches(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "prune-caches", Hidden: true, Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error { return h.Jobs.PruneCaches(ctx) }),
	}
}
