package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
	"nspawn-runner/runner/age"
	"nspawn-runner/runner/oci"
	"nspawn-runner/runner/oci/unpack"
	"nspawn-runner/runner/size"
)

func registryImages(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "image", Short: "Pull, list and remove images of registries",
		Args: noCommand, // else an unknown command is help, and success
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	c.AddCommand(imagePull(o), imageList(o), imageRemove(o))
	return c
}

func imagePull(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "pull REFERENCE", Short: "Pull an image from its registry, unless this host has it as it is there now",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArgument(completeRegistryImages(o)),
		RunE: o.on(func(ctx context.Context, h *runner.Host, args []string) error {
			image, err := h.PullImage(ctx, args[0])
			if err != nil || asJSON {
				return printed(image, err)
			}
			o.display.say("%s: %s", args[0], image.Digest)
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func imageList(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List images of registries that are on this host",
		Args: cobra.NoArgs,
		RunE: o.on(func(_ context.Context, h *runner.Host, _ []string) error {
			images, err := h.RegistryImages()
			if err != nil || asJSON {
				return printed(images, err)
			}
			return printRegistryImages(os.Stdout, images)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func imageRemove(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "remove REFERENCE|DIGEST", Short: "Remove an image of a registry from this host, unless jobs use it",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArgument(completeRegistryImages(o)),
		RunE: o.on(func(ctx context.Context, h *runner.Host, args []string) error {
			pruned, err := h.RemoveRegistryImage(ctx, args[0])
			if err != nil || asJSON {
				return printed(pruned, err)
			}
			for _, i := range pruned.Removed {
				o.display.say("%s: removed", i.Digest)
			}
			for _, i := range pruned.InUse {
				o.display.say("%s: a job uses it, so it stays", i.Digest)
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// sayRegistryImages ends a list of images with those of registries, if there are any.
func sayRegistryImages(h *runner.Host) error {
	images, err := h.RegistryImages()
	if err != nil || len(images) == 0 {
		return err
	}
	fmt.Println()
	return printRegistryImages(os.Stdout, images)
}

// printRegistryImages prints a line for each image.
func printRegistryImages(out io.Writer, images []oci.Image) error {
	table := newTable(out)
	fmt.Fprintln(table, "REFERENCE\tDIGEST\tPULLED\tUSED\tSIZE")
	for _, i := range images {
		names := strings.Join(i.References, " ")
		if names == "" {
			names = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", names, i.Digest[:min(len(i.Digest), len("sha256:")+12)],
			age.Ago(i.Pulled), age.Ago(i.Used), size.MiB(i.Size))
	}
	return table.Flush()
}

// unpackLayers is what a pull of an image has a child do, in namespaces of its own; nobody
// types it.
func unpackLayers() *cobra.Command {
	return &cobra.Command{
		Use: unpack.Command + " TREE BYTES FILES", Hidden: true, Args: cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error { return unpack.Run(args, os.Stdin, os.Stdout) },
	}
}
