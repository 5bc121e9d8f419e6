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

// Where Install puts things.
const (
	installed = "/usr/local/bin/nspawn-runner"
	units     = "/usr/local/lib/systemd/system"
)

// Install puts the program, its directories and the nightly maintenance on this host, and says what is missing there.
func Install(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("install: must run as root")
	}
	mg.CtxDeps(ctx, Build)
	for dir, mode := range map[string]os.FileMode{"/etc/nspawn-runner": 0o755, "/var/lib/nspawn-runner": 0o700, units: 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	// install(1) replaces the file: a running driver keeps the old one.
	commands := []string{
		"install -m 0755 build/nspawn-runner " + installed,
		"install -m 0644 -t " + units + " packaging/nspawn-runner-maintenance.service packaging/nspawn-runner-maintenance.timer",
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		commands = append(commands, "systemctl daemon-reload")
	}
	for _, command := range commands {
		if _, err := script.Exec(command).Stdout(); err != nil {
			return fmt.Errorf("install: %s: %w", command, err)
		}
	}
	if missing := missingPackages(); missing != "" {
		fmt.Println("missing on this host: apt-get install " + missing)
	}
	fmt.Println(installed + ": installed; playbooks go to /etc/nspawn-runner, see playbooks/")
	fmt.Println("nightly maintenance: systemctl enable --now nspawn-runner-maintenance.timer")
	return nil
}

// missingPackages lists what machines and images need and this host lacks.
func missingPackages() string {
	needed := "systemd-container dbus passt mmdebstrap ansible-core"
	// dpkg-query fails when it does not know one: what it knows still counts.
	have, _ := script.Exec("dpkg-query -W -f '${db:Status-Status} ${Package}\\n' " + needed).
		Match("installed ").Reject("not-installed").Column(2).Slice()
	installed := regexp.MustCompile("^(" + strings.Join(have, "|") + ")$")
	missing, _ := script.Slice(strings.Fields(needed)).RejectRegexp(installed).Join().String()
	return strings.TrimSpace(missing)
}
