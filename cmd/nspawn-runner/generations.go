package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
		ValidArgsFunction: firstArgument(completeImages(o)),
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
		Use: "chroot-list", Short: "List images, including those that are not built yet",
		Long: "Print the name of each image and the path of its chroot, one image per line: those that\n" +
			"are built, those that have only a playbook yet, and images of registries on this host.",
		Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error {
			if long {
				histories, err := h.ImageHistories(ctx)
				if err != nil || asJSON {
					return printed(histories, err)
				}
				if err := printHistories(os.Stdout, histories); err != nil {
					return err
				}
				return sayRegistryImages(h)
			}
			images, err := h.Images()
			if err != nil || asJSON {
				return printed(images, err)
			}
			for _, i := range images {
				fmt.Println(i.Name, i.Path)
			}
			pulled, err := h.RegistryImages()
			for _, i := range pulled {
				for _, name := range i.References {
					fmt.Println(name, i.Path)
				}
			}
			return err
		}),
	}
	c.Flags().BoolVarP(&long, "long", "l", false, "list generations with age, origin, size and jobs, and whether the playbook has changed since")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func chrootShow(o *options) *cobra.Command {
	return namedCommand(o, "chroot-show", "Show the release, packages, playbook, generations and jobs of an image",
		func(ctx context.Context, h *runner.Host, name string, asJSON bool) error {
			contents, err := h.ImageContents(ctx, name)
			if err != nil || asJSON {
				return printed(contents, err)
			}
			return printContents(os.Stdout, contents)
		})
}

func chrootDiff(o *options) *cobra.Command {
	c := namedCommand(o, "chroot-diff", "Show which packages changed since the previous generation",
		func(_ context.Context, h *runner.Host, name string, asJSON bool) error {
			diff, err := h.Diff(name)
			if err != nil || asJSON {
				return printed(diff, err)
			}
			o.display.say("%s: from generation %s to %s: %d packages differ", name, diff.Before, diff.After, len(diff.Changes))
			printDiff(os.Stdout, diff)
			return nil
		})
	c.Long = "Show which packages differ between the current generation and the one that it replaced:\n" +
		"'+' for added ones, '-' for removed ones, and both versions of the others."
	return c
}

func chrootRollback(o *options) *cobra.Command {
	var to string
	c := namedCommand(o, "chroot-rollback", "Make the previous generation current again",
		func(ctx context.Context, h *runner.Host, name string, asJSON bool) error {
			done, err := h.Rollback(ctx, name, to)
			if err != nil || asJSON {
				return printed(done, err)
			}
			if done.Generation == done.Was {
				o.display.say("%s: generation %s is the current one already", name, done.Generation)
				return nil
			}
			o.display.say("%s: new jobs get generation %s; running ones keep theirs", name, done.Generation)
			o.display.say("%s: the next maintenance starts from it; to undo this first: chroot-rollback --to %s %s", name, filepath.Base(done.Was), name)
			return nil
		})
	c.Long = "Make the generation that was current before this one current again. A second\n" +
		"call goes back one more generation, or fails if there is none; --to goes to any\n" +
		"generation that still exists, newer ones too. Running jobs keep theirs."
	c.Flags().StringVar(&to, "to", "", "`generation` to go to, as chroot-list --long shows it")
	completeFlag(c, "to", completeGenerations(o))
	return c
}

func chrootPrune(o *options) *cobra.Command {
	var keep int
	var asJSON bool
	c := imageCommand(o, "chroot-prune", "Remove older generations that no job uses, and trees of failed builds",
		func(ctx context.Context, h *runner.Host, args []string) error {
			all, err := h.Prune(ctx, first(args), keep)
			if asJSON && all != nil {
				return errors.Join(err, printJSON(os.Stdout, all))
			}
			said := 0
			for _, pruned := range all {
				said += sayPruned(o.display, pruned)
			}
			if said == 0 && err == nil {
				o.display.say("nothing to remove")
			}
			return err
		})
	c.Flags().IntVar(&keep, "keep", runner.KeptGenerations, "how many generations to keep: the current one and those that it replaced")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// sayPruned says what was removed of an image, in so many lines.
func sayPruned(d *display, pruned runner.Pruned) (lines int) {
	all := pruned.Lines()
	for _, line := range all {
		d.say("%s", line)
	}
	return len(all)
}

func chrootRemove(o *options) *cobra.Command {
	return namedCommand(o, "chroot-remove", "Remove the chroot of an image; running jobs keep theirs, the playbook stays",
		func(ctx context.Context, h *runner.Host, name string, asJSON bool) error {
			removed, err := h.Remove(ctx, name)
			if err != nil || asJSON {
				return printed(removed, err)
			}
			sayPruned(o.display, removed)
			o.display.say("%s: removed", name)
			if removed.Playbook != "" {
				o.display.say("%s: its playbook %s stays, so the next maintenance creates it again", name, removed.Playbook)
			}
			return nil
		})
}
