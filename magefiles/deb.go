//go:build mage

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"nspawn-runner/packaging"
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

// Release commits and tags a version, such as 0.2.0, in the program, CHANGELOG.md and debian/changelog, and opens the next.
func Release(ctx context.Context, version string) error {
	if err := packaging.Release(ctx, ".", version, time.Now()); err != nil {
		return err
	}
	fmt.Printf("v%s is the commit before this one: git push --follow-tags; git checkout v%[1]s && go tool mage deb\n", version)
	return nil
}
