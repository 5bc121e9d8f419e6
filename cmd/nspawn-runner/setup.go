package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
	"nspawn-runner/runner/doctor"
	"nspawn-runner/runner/job"
)

func toml(o *options) *cobra.Command {
	var name, url, tokenFile, defaultImage string
	var allowed job.Permission
	c := &cobra.Command{
		Use: "toml", Short: "Print the block for gitlab-runner's config.toml",
		Long: "Print the block of a runner to append to /etc/gitlab-runner/config.toml. What no flag\n" +
			"fills in has to be filled in there.",
		Example: "  nspawn-runner toml --url https://gitlab.example.org/ --token-file /root/token --name ci >>/etc/gitlab-runner/config.toml",
		Args:    cobra.NoArgs,
		RunE: o.on(func(_ context.Context, h *runner.Host, _ []string) error {
			text, err := h.TOML(name, url, tokenFile, defaultImage, allowed)
			fmt.Print(text)
			return err
		}),
	}
	c.Flags().StringVar(&name, "name", "", "`name` of the runner")
	c.Flags().StringVar(&url, "url", "", "`URL` of your GitLab")
	c.Flags().StringVar(&tokenFile, "token-file", "", "`file` that holds the runner's authentication token")
	c.Flags().StringVar(&defaultImage, "default-image", "", "`image` of jobs that name none")
	completeFlag(c, "default-image", completeImages(o))
	allowImage(o, c, &allowed)
	return c
}

func gc(o *options) *cobra.Command {
	var dryRun, asJSON bool
	c := &cobra.Command{
		Use: "gc", Short: "Remove what dead jobs, killed builds and crashes left",
		Long: "Remove what no running job or build owns: machines whose gitlab-runner is dead,\n" +
			"remains of crashes, reboots and killed builds, generations of removed images,\n" +
			"bases and downloads of no further use, and caches and images of registries above\n" +
			"their limits. Older generations stay; chroot-prune removes them.",
		Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error {
			leftovers, err := h.GC(ctx, dryRun)
			if leftovers == nil { // not even looked for
				return err
			}
			if asJSON {
				return errors.Join(err, printJSON(os.Stdout, leftovers))
			}
			if len(leftovers) == 0 && err == nil {
				o.display.say("nothing to remove")
			}
			return errors.Join(err, printLeftovers(os.Stdout, leftovers, dryRun))
		}),
	}
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only list what would be removed, and why")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func doctorCommand(o *options) *cobra.Command {
	var image string
	var asJSON, fix, dryRun bool
	c := &cobra.Command{
		Use: "doctor", Short: "Check whether this host can run jobs, and say what to do",
		Long: "Check whether this host can run jobs, and say what to do, in the order in which\n" +
			"to do it. The exit code is 1 if a check is bad; warnings do not count.\n" +
			"With --fix, first do what can do no harm: set kernel limits that are too low, write\n" +
			"files of its own, remove what nobody owns. The rest stays advice.",
		Args: cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error {
			if dryRun && !fix {
				return errors.New("--dry-run is for --fix")
			}
			findings, err := h.Doctor.Examine(ctx, image)
			if err != nil {
				return err
			}
			var unfixed error
			if fix {
				var fixed int
				fixed, unfixed = applyFixes(ctx, findings, dryRun, o.display.say)
				if fixed > 0 {
					if findings, err = h.Doctor.Examine(ctx, image); err != nil {
						return errors.Join(unfixed, err)
					}
				}
			}
			if asJSON {
				err = printJSON(os.Stdout, findings)
			} else {
				err = printFindings(os.Stdout, findings, looksOf(os.Stdout))
			}
			err = cmp.Or(err, problems(findings))
			if unfixed != nil && err != nil {
				return fmt.Errorf("%w; %w", unfixed, err)
			}
			return cmp.Or(unfixed, err)
		}),
	}
	c.Flags().BoolVar(&fix, "fix", false, "mend what can be mended without harm, and say each step")
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "with --fix: only say the steps")
	c.Flags().StringVar(&image, "job", "", "run a job of this `image` too")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	completeFlag(c, "job", completeImages(o))
	return c
}

// applyFixes does, or only says, what mends findings, and returns how many it mended.
func applyFixes(ctx context.Context, findings []doctor.Finding, dryRun bool, say func(format string, args ...any)) (fixed int, failed error) {
	steps := 0
	for _, f := range findings {
		if f.Fix == nil || ctx.Err() != nil {
			continue
		}
		steps++
		if dryRun {
			say("would fix %s: %s", f.Check, f.Fix.What)
			continue
		}
		if err := f.Fix.Do(ctx); err != nil {
			say("not fixed: %s: %v", f.Check, err)
			failed = errors.New("not everything could be fixed")
			continue
		}
		say("fixed %s: %s", f.Check, f.Fix.What)
		fixed++
	}
	if steps == 0 {
		say("there is nothing to fix without an administrator")
	}
	return fixed, failed
}

func version() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Print the release, the revision of the source, and the version of Go",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), runner.ThisBuild())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), runner.ThisBuild())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
