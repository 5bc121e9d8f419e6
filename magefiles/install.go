//go:build mage

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"nspawn-runner/packaging"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/packages"
)

// Install puts the program, its directories and the nightly maintenance on this host, and says what is missing there.
func Install(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("install: must run as root")
	}
	program, err := packaging.Build(ctx, buildDir)
	if err != nil {
		return err
	}
	if err := packaging.Local.Install(program); err != nil {
		return err
	}
	if missing := packages.Missing(packages.Needed); missing != nil {
		fmt.Println("missing on this host: " + packages.Install(missing...))
	}
	fmt.Printf("%s: installed; playbooks go to %s, see playbooks/\n", packaging.Local.Program(), config.Default().PlaybookDir)
	fmt.Println("nightly maintenance: systemctl enable --now nspawn-runner-maintenance.timer")
	return nil
}
