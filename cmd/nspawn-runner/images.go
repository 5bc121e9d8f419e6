package main

import (
	"context"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
)

// imageCommand makes a command with an optional IMAGE, which the shell
// completes.
func imageCommand(o *options, use, short string, do func(ctx context.Context, h *runner.Host, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " [IMAGE]", Short: short,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeImages(o),
		RunE:              o.on(do),
	}
}

// completeImages offers the names of images to the shell.
func completeImages(o *options) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if h, err := o.host(runner.New); err == nil && len(args) == 0 {
			return h.ImageNames(), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func chrootCreate(o *options) *cobra.Command {
	var suite, defaultImage string
	c := imageCommand(o, "chroot-create", "Create an image's chroot, from its playbook if it has one",
		func(ctx context.Context, h *runner.Host, args []string) error {
			name, err := h.NameOf(first(args), defaultImage)
			if err != nil {
				return err
			}
			return h.ChrootCreate(ctx, name, suite)
		})
	c.Flags().StringVar(&suite, "suite", "", "Debian suite (default: the playbook's, else unstable)")
	c.Flags().StringVar(&defaultImage, "default-image", "", "the image when none is named")
	return c
}

func chrootLogin(o *options) *cobra.Command {
	var discard, failed bool
	var defaultImage string
	c := imageCommand(o, "chroot-login", "Open a shell in a copy of a chroot, and publish it when the shell ends with 0",
		func(ctx context.Context, h *runner.Host, args []string) error {
			name, err := h.NameOf(first(args), defaultImage)
			if err != nil {
				return err
			}
			if failed {
				return h.ChrootLoginFailed(ctx, name)
			}
			return h.ChrootLogin(ctx, name, discard)
		})
	c.Flags().BoolVar(&discard, "discard", false, "throw away what the shell changes")
	c.Flags().BoolVar(&failed, "failed", false, "a shell in the tree of the last build, if its playbook or its test failed")
	c.MarkFlagsMutuallyExclusive("discard", "failed")
	c.Flags().StringVar(&defaultImage, "default-image", "", "the image when none is named")
	return c
}

func chrootMaintenance(o *options) *cobra.Command {
	var how runner.Maintenance
	c := imageCommand(o, "chroot-maintenance", "Run the playbooks of all images, or of one, and create what is missing",
		func(ctx context.Context, h *runner.Host, args []string) error {
			how.Image = first(args)
			return h.ChrootMaintenance(ctx, how)
		})
	c.Flags().BoolVar(&how.Recreate, "recreate", false, "build from scratch, not on a copy")
	c.Flags().Var(&how.IfOlder, "if-older", "skip images maintained less than this time ago, like 24h or 7d, unless their playbook changed")
	c.Flags().BoolVar(&how.NoWait, "no-wait", false, "fail on an image that is being built already, and say by whom")
	c.Flags().IntVar(&how.Jobs, "jobs", 0, "how many images are built at a time (default: what processors and memory allow)")
	c.Flags().BoolVar(&how.JSON, "json", false, "print what goes on as JSON, an object a line")
	return c
}
