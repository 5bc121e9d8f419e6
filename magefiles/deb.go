//go:build mage

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"nspawn-runner/test/suite"
)

// Deb builds the Debian packages for amd64 and arm64, and the source package, in a lab, and checks them with lintian.
func Deb(ctx context.Context) error {
	dir := filepath.Join(buildDir, "deb")
	version, err := suite.Deb(ctx, os.Stdout, dir, "amd64", "arm64")
	if err == nil {
		fmt.Printf("%s: nspawn-runner %s\n", dir, version)
	}
	return err
}
