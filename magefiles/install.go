//go:build mage

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/bitfield/script"
	"github.com/magefile/mage/mg"
)

// installed is where Install puts the program.
const installed = "/usr/local/bin/nspawn-runner"

// Install puts the program and its directories on this host, and says what is missing there.
func Install(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("install: must run as root")
	}
	mg.CtxDeps(ctx, Build)
	for dir, mode := range map[string]os.FileMode{"/etc/nspawn-runner": 0o755, "/var/lib/nspawn-runner": 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	// install(1) replaces the file: a running driver keeps the old one.
	if err := script.Exec("install -m 0755 build/nspawn-runner " + installed).Wait(); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if missing := missingPackages(); missing != "" {
		fmt.Println("missing on this host: apt-get install " + missing)
	}
	fmt.Println(installed + ": installed; playbooks go to /etc/nspawn-runner, see playbooks/")
	return nil
}

// missingPackages lists what machines and images need and this host lacks.
func missingPackages() string {
	needed := "systemd-container dbus mmdebstrap ansible-core"
	// dpkg-query fails when it does not know one: what it knows still counts.
	have, _ := script.Exec("dpkg-query -W -f '${db:Status-Status} ${Package}\\n' " + needed).
		Match("installed ").Reject("not-installed").Column(2).Slice()
	installed := regexp.MustCompile("^(" + strings.Join(have, "|") + ")$")
	missing, _ := script.Slice(strings.Fields(needed)).RejectRegexp(installed).Join().String()
	return strings.TrimSpace(missing)
}
