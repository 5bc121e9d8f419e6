// Package packaging makes the product of its source: the program, and the files that
// ship with it. What installs the product and what tests it use this one recipe.
package packaging

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bitfield/script"
	"github.com/google/renameio/v2"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/host"
)

// name is the program's.
const name = "nspawn-runner"

// Layout says in which directories of a host the product lies.
type Layout struct {
	// Programs is the directory of the program.
	Programs string
	// Units is the directory of systemd's units: systemd.unit(5).
	Units string
}

// Local is the layout for what an administrator installs without a package manager: hier(7).
var Local = Layout{Programs: "/usr/local/bin", Units: "/usr/local/lib/systemd/system"}

// Program is the path of the program.
func (l Layout) Program() string { return filepath.Join(l.Programs, name) }

// Build compiles the program into a directory, with more flags of go build, and returns
// its path. It must be called in the module. The program is static, so that it runs on
// any Debian. Where the source is a clone, Go writes its revision into the program.
func Build(ctx context.Context, dir string, flags ...string) (program string, err error) {
	program = filepath.Join(dir, name)
	args := append([]string{"build", "-trimpath", "-buildvcs=" + stamp(ctx), "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "nspawn-runner/cmd/nspawn-runner")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return program, nil
}

// stamp is the value of Go's -buildvcs. Where git refuses to read a clone, as one of
// another user's, go build would fail for that.
func stamp(ctx context.Context) string {
	if exec.CommandContext(ctx, "git", "rev-parse", "--verify", "--quiet", "HEAD").Run() != nil {
		return "false"
	}
	return "auto"
}

// units are systemd's, in which @programs@ stands for the directory of the program.
//
//go:embed *.service *.timer
var units embed.FS

// WriteUnits writes systemd's units into a directory, which it makes, for a program that
// lies as the layout says.
func (l Layout) WriteUnits(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names, err := fs.Glob(units, "*")
	if err != nil {
		return err
	}
	for _, unit := range names {
		text, err := units.ReadFile(unit)
		if err != nil {
			return err
		}
		filled := strings.ReplaceAll(string(text), "@programs@", l.Programs)
		if err := renameio.WriteFile(filepath.Join(dir, unit), []byte(filled), 0o644, renameio.WithStaticPermissions(0o644)); err != nil {
			return err
		}
	}
	return nil
}

// Install puts a program that was built, and what ships with it, on this host, and makes
// the directories of its default configuration. A driver that runs keeps the program
// that it was started from.
func (l Layout) Install(program string) error {
	if os.Geteuid() != 0 {
		return errors.New("install: must run as root")
	}
	settings := config.Default()
	// Files in the state directory are jobs' and may be setuid.
	for dir, mode := range map[string]os.FileMode{l.Programs: 0o755, settings.PlaybookDir: 0o755, settings.StateDir: 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := renameio.WriteFile(l.Program(), binary, 0o755, renameio.WithStaticPermissions(0o755)); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := l.WriteUnits(l.Units); err != nil {
		return fmt.Errorf("install: units of systemd: %w", err)
	}
	if !host.RunsSystemd() {
		return nil // systemd does not run this host
	}
	if out, err := script.Exec("systemctl daemon-reload").String(); err != nil {
		return fmt.Errorf("install: systemctl daemon-reload: %w: %s", err, strings.TrimSpace(out))
	}
	return nil
}
