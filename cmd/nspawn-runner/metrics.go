package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"nspawn-runner/runner"
)

func metrics(o *options) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "metrics", Short: "Print numbers for Prometheus, or write them for node_exporter",
		Long: "Print what jobs did on this host, and the state of its machines and images, in\n" +
			"the text format of Prometheus. With --textfile, write it as " + runner.TextfileName + " into\n" +
			"the directory of node_exporter's textfile collector instead.",
		Example: "  nspawn-runner metrics --textfile /var/lib/prometheus/node-exporter",
		Args:    cobra.NoArgs,
		RunE: o.on(func(ctx context.Context, h *runner.Host, _ []string) error {
			if dir != "" {
				return h.WriteTextfile(ctx, dir)
			}
			text, err := h.Metrics(ctx)
			if err == nil {
				_, err = os.Stdout.Write(text)
			}
			return err
		}),
	}
	c.Flags().StringVar(&dir, "textfile", "", "`directory` to write "+runner.TextfileName+" into")
	_ = c.MarkFlagDirname("textfile") // it fails for a flag that is not there
	return c
}
