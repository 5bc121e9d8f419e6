package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
)

// imageCommand makes a command with an optional IMAGE, which the shell
// completes.
func imageCommand(o *options, use, short string, do func(ctx context.Context, h *runner.Host, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " [IMAGE]", Short: short,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: firstArgument(completeImages(o)),
		RunE:              o.on(do),
	}
}

func chrootCreate(o *options) *cobra.Command {
	var suite, defaultImage string
	c := imageCommand(o, "chroot-create", "Create the chroot of an image, and run its playbook if it has one",
		func(ctx context.Context, h *runner.Host, args []string) error {
			name, err := h.NameOf(first(args), defaultImage)
			if err != nil {
				return err
			}
			if !o.isVerbose() {
				o.display.showLive()
			}
			generation, err := h.Create(ctx, name, suite)
			o.display.close()
			if err == nil {
				o.display.say("%s: created, generation %s", name, generation)
			}
			return err
		})
	c.Long = "Create the chroot of an image: a bare system of the suite, in which its playbook runs\n" +
		"if there is one. An image that exists stays as it is; chroot-maintenance updates it."
	c.Example = "  nspawn-runner chroot-create bookworm\n  nspawn-runner chroot-create --suite trixie plain"
	c.Flags().StringVar(&suite, "suite", "", "Debian `suite` (default: the playbook's, else unstable)")
	c.Flags().StringVar(&defaultImage, "default-image", "", "`image` to use if none is named")
	completeFlag(c, "default-image", completeImages(o))
	return c
}

func chrootLogin(o *options) *cobra.Command {
	var discard, failed bool
	var defaultImage string
	c := imageCommand(o, "chroot-login", "Open a shell in a copy of a chroot, and publish the copy if the shell exits with 0",
		func(ctx context.Context, h *runner.Host, args []string) error {
			name, err := h.NameOf(first(args), defaultImage)
			if err != nil {
				return err
			}
			if failed {
				return h.Inspect(ctx, name, streams())
			}
			generation, err := h.Edit(ctx, name, discard, streams())
			if errors.Is(err, runner.ErrDiscarded) {
				o.display.say("%s: discarded, as you asked", name)
				return nil
			}
			if err == nil {
				o.display.say("%s: published, generation %s", name, generation)
			}
			return err
		})
	c.Long = "Open a shell in a copy of the current generation of an image. If the shell exits with 0,\n" +
		"the copy is published, and new jobs get it; else it is discarded ('exit 1')."
	c.Flags().BoolVar(&discard, "discard", false, "never publish the copy")
	c.Flags().BoolVar(&failed, "failed", false, "open the tree of the last build, if its playbook or test failed")
	c.MarkFlagsMutuallyExclusive("discard", "failed")
	c.Flags().StringVar(&defaultImage, "default-image", "", "`image` to use if none is named")
	completeFlag(c, "default-image", completeImages(o))
	return c
}

func chrootMaintenance(o *options) *cobra.Command {
	var how runner.Maintenance
	var asJSON bool
	c := imageCommand(o, "chroot-maintenance", "Run the playbooks of all images, or of one, and create missing chroots",
		func(ctx context.Context, h *runner.Host, args []string) error {
			how.Image = first(args)
			return maintain(ctx, o, h, how, asJSON)
		})
	c.Long = "Run the playbooks of all images, or of one, each in a copy of the image's current\n" +
		"generation, and publish what changed: new jobs get that. Images that have only a\n" +
		"playbook are created. An image that fails stays as it was."
	c.Example = "  nspawn-runner chroot-maintenance\n  nspawn-runner chroot-maintenance --recreate bookworm"
	c.Flags().BoolVar(&how.Recreate, "recreate", false, "build from scratch, not on a copy of the current generation")
	c.Flags().Var(&how.IfOlder, "if-older", "skip images maintained less than this time ago, like 24h or 7d, unless their playbook changed")
	c.Flags().BoolVar(&how.NoWait, "no-wait", false, "fail if another process builds an image, and name the process")
	c.Flags().IntVar(&how.Jobs, "jobs", 0, "how many images to build at a time (default: as many as processors and memory allow)")
	c.Flags().BoolVar(&asJSON, "json", false, "print events as JSON, one object per line")
	return c
}

// maintain maintains images, and ends with a table of all, unless it was one only.
func maintain(ctx context.Context, o *options, h *runner.Host, how runner.Maintenance, asJSON bool) error {
	switch {
	case asJSON:
		o.display.showJSON(os.Stdout)
	case !o.isVerbose():
		o.display.showLive()
	}
	defer o.display.close()
	if !asJSON {
		o.display.quiet = how.Image // its error is the command's
	}
	all, err := h.Maintain(ctx, how)
	o.display.close()
	if err != nil {
		return err
	}
	var failed []string
	for _, m := range all {
		if m.Err() != nil && how.Image != "" {
			return m.Err()
		}
		if m.Err() != nil {
			failed = append(failed, m.Image)
		}
	}
	if how.Image == "" && !asJSON && len(all) > 0 {
		if err := printMaintained(os.Stderr, all); err != nil {
			return err
		}
	}
	if failed != nil {
		return fmt.Errorf("maintenance of %d of %d images failed: %s", len(failed), len(all), strings.Join(failed, ", "))
	}
	return nil
}
