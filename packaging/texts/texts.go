// Package texts writes what ships with the program and is made from its tables and help
// texts: manual pages, completions for shells, the commented configuration file, settings
// of the kernel, and systemd's units.
package texts

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nspawn-runner/packaging"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/doctor"
)

// Write writes them below a directory, for the command line of the program, as a layout
// installs it: man/, completions/, units/, nspawn-runner.yaml and 50-nspawn-runner.conf.
// The same input makes the same files, if SOURCE_DATE_EPOCH is set.
func Write(root *cobra.Command, layout packaging.Layout, dir string) error {
	man, completions := filepath.Join(dir, "man"), filepath.Join(dir, "completions")
	if err := errors.Join(os.MkdirAll(man, 0o755), os.MkdirAll(completions, 0o755)); err != nil {
		return err
	}
	return errors.Join(
		writeCommands(root, man),
		writeSettings(man),
		writeCompletions(root, completions),
		layout.WriteUnits(filepath.Join(dir, "units")),
		os.WriteFile(filepath.Join(dir, "nspawn-runner.yaml"), []byte(config.File()), 0o644),
		os.WriteFile(filepath.Join(dir, "50-nspawn-runner.conf"), []byte(doctor.Sysctls()), 0o644),
	)
}

// writeCompletions writes a completion for each shell, under the name by which the shell
// finds it.
func writeCompletions(root *cobra.Command, dir string) error {
	name := root.Name()
	return errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(dir, name), true),
		root.GenZshCompletionFile(filepath.Join(dir, "_"+name)),
		root.GenFishCompletionFile(filepath.Join(dir, name+".fish"), true),
	)
}
