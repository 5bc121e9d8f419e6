package main

import (
	"context"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
)

// namedCommand makes a command with an IMAGE, which the shell completes, and
// --json. It takes no default: what removes something must be told what.
func namedCommand(o *options, use, short string, do func(ctx context.Context, h *runner.Host, name string, asJSON bool) error) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: use + " IMAGE", Short: short,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeImages(o),
		RunE: o.on(func(ctx context.Context, h *runner.Host, args []string) error {
			return do(ctx, h, args[0], asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func chrootList(o *options) *cobra.Command {
	var long, asJSON bool
	c := &cobra.Command{
		Use: "chroot-list", Short: "List images: chroots, and playbooks without one",
		Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error { return h.ChrootList(ctx, long, asJSON) }),
	}
	c.Flags().BoolVarP(&long, "long", "l", false, "list generations: age, origin, size, jobs, and whether the playbook waits")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func chrootShow(o *options) *cobra.Command {
	return namedCommand(o, "chroot-show", "Show what is in an image: release, packages, playbook, generations, jobs",
		func(ctx context.Context, h *runner.Host, name string, asJSON bool) error {
			return h.ChrootShow(ctx, name, asJSON)
		})
}

func chrootDiff(o *options) *cobra.Command {
	return namedCommand(o, "chroot-diff", "Show which packages changed since the previous generation",
		func(_ context.Context, h *runner.Host, name string, asJSON bool) error {
			return h.ChrootDiff(name, asJSON)
		})
}

func chrootRollback(o *options) *cobra.Command {
	var to string
	c := namedCommand(o, "chroot-rollback", "Make the previous generation current again",
		func(ctx context.Context, h *runner.Host, name string, asJSON bool) error {
			return h.ChrootRollback(ctx, name, to, asJSON)
		})
	c.Long = "Make the generation that was current before this one current again. A second\n" +
		"time it goes back further, or says that there is nothing older; --to goes to\n" +
		"any generation that is still there, newer ones too. Running jobs keep theirs."
	c.Flags().StringVar(&to, "to", "", "the generation, as chroot-list --long shows it")
	return c
}

func chrootPrune(o *options) *cobra.Command {
	var keep int
	var asJSON bool
	c := imageCommand(o, "chroot-prune", "Remove older generations that no job uses, and trees of failed builds, of all images or of one",
		func(ctx context.Context, h *runner.Host, args []string) error {
			return h.ChrootPrune(ctx, first(args), keep, asJSON)
		})
	c.Flags().IntVar(&keep, "keep", runner.KeptGenerations, "how many generations stay: the current one, and those it replaced")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func chrootRemove(o *options) *cobra.Command {
	return namedCommand(o, "chroot-remove", "Remove an image's chroot; running jobs keep theirs, the playbook stays",
		func(ctx context.Context, h *runner.Host, name string, asJSON bool) error {
			return h.ChrootRemove(ctx, name, asJSON)
		})
}
