package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nspawn-runner/runner"
)

// A completion offers words to the shell. It is quick, and silent about what it cannot
// know: without root, nothing of the state directory.
type completion = cobra.CompletionFunc

// offer makes a completion of what it offers on a host.
func offer(o *options, words func(ctx context.Context, h *runner.Host, args []string) []cobra.Completion) completion {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		h, err := o.host(false)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words(c.Context(), h, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// unmarkUsages takes the marks of the names of values out of the usages of flags, of which
// help makes those names, and which a shell would show.
func unmarkUsages(c *cobra.Command) {
	for _, below := range c.Commands() {
		unmarkUsages(below)
	}
	for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) })
	}
}

// completeImages offers the names of images.
func completeImages(o *options) completion {
	return offer(o, func(_ context.Context, h *runner.Host, _ []string) []cobra.Completion { return h.ImageNames() })
}

// completeMachines offers the ids of machines, each with its image.
func completeMachines(o *options) completion {
	return offer(o, func(ctx context.Context, h *runner.Host, _ []string) (ids []cobra.Completion) {
		machines, err := h.Machines(ctx, nil)
		if err != nil {
			return nil
		}
		for _, m := range machines {
			ids = append(ids, cobra.CompletionWithDesc(m.ID, m.Image))
		}
		return ids
	})
}

// completeRegistryImages offers the references of images that were pulled.
func completeRegistryImages(o *options) completion {
	return offer(o, func(_ context.Context, h *runner.Host, _ []string) (references []cobra.Completion) {
		images, err := h.RegistryImages()
		if err != nil {
			return nil
		}
		for _, image := range images {
			references = append(references, image.References...)
		}
		return references
	})
}

// completeGenerations offers the generations of the image that the first argument names,
// the newest first.
func completeGenerations(o *options) completion {
	all := offer(o, func(_ context.Context, h *runner.Host, args []string) []cobra.Completion {
		return h.GenerationNames(first(args))
	})
	return func(c *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		words, directive := all(c, args, begin)
		return words, directive | cobra.ShellCompDirectiveKeepOrder
	}
}

// completeTry offers images, and files as the script.
func completeTry(o *options) completion {
	images := completeImages(o)
	return func(c *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return images(c, args, begin)
		}
		return completeFiles(c, args, begin)
	}
}

// completeFiles has the shell offer files.
func completeFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// firstArgument is a completion for the first argument only.
func firstArgument(complete completion) completion {
	return func(c *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, args, begin)
	}
}

// completeFlag has a completion complete the value of a flag.
func completeFlag(c *cobra.Command, flag string, complete completion) {
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // there is no such flag
	}
}

// completeNothing keeps the shell from offering files where no command said what it takes.
func completeNothing(c *cobra.Command) {
	for _, below := range c.Commands() {
		completeNothing(below)
		if below.ValidArgsFunction == nil && !below.HasSubCommands() {
			below.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
}
