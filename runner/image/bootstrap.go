package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"nspawn-runner/runner/storage"
)

// included are the packages without which an image is of no use: git, dbus,
// systemd and python3 are the original's; git needs ca-certificates to clone
// from https, a boot needs systemd-sysv, and jobs expect netbase and procps.
const included = "git,dbus,systemd,python3,ca-certificates,systemd-sysv,netbase,procps"

var suitePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.+_-]*$`)

// checkSuite refuses what debootstrap would take for an option or a path.
func checkSuite(suite string) error {
	if !suitePattern.MatchString(suite) {
		return fmt.Errorf("suite %q: not the name of a suite", suite)
	}
	return nil
}

// bootstrap fills the generation with a minimal Debian.
func (b *build) bootstrap(ctx context.Context, suite string) error {
	// Without a mirror both know one.
	// mmdebstrap needs a third of the time.
	program := "mmdebstrap"
	if _, err := exec.LookPath(program); err != nil {
		program = "debootstrap"
	}
	if _, err := exec.LookPath(program); err != nil {
		return errors.New("there is neither mmdebstrap nor debootstrap: apt-get install mmdebstrap")
	}
	return b.step(ctx, "bootstrap "+suite+" with "+program, func() error {
		root := b.generation.Path
		if err := storage.Create(root); err != nil {
			return err
		}
		if err := os.Chmod(root, 0o755); err != nil { // whatever the umask says
			return err
		}
		args := []string{program, "--variant=minbase", "--include=" + included}
		exceptions := aptExceptions(ctx)
		if program == "mmdebstrap" {
			for _, exception := range exceptions {
				args = append(args, "--aptopt="+exception)
			}
		}
		args = append(args, suite, root)
		if _, err := exec.LookPath("eatmydata"); err == nil {
			// All is flushed once, before it is published.
			args = append([]string{"eatmydata"}, args...)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(b.store.environment(), "LC_ALL=C.UTF-8")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			// Killed, debootstrap leaves mounts and processes behind. In
			// namespaces of its own all of them vanish with it.
			Cloneflags:   syscall.CLONE_NEWPID,
			Unshareflags: syscall.CLONE_NEWNS,
		}
		if err := b.run(ctx, cmd); err != nil {
			// debootstrap's own log is in the tree, which is about to go.
			if text, readErr := os.ReadFile(filepath.Join(root, "debootstrap/debootstrap.log")); readErr == nil {
				fmt.Fprintf(b.log, "== debootstrap/debootstrap.log\n%s", text)
			}
			return err
		}
		if program == "debootstrap" && exceptions != nil {
			conf := strings.Join(exceptions, ";\n") + ";\n"
			if err := os.WriteFile(filepath.Join(root, "etc/apt/apt.conf.d/99debootstrap"), []byte(conf), 0o644); err != nil {
				return err
			}
		}
		return forgetHost(root, b.image)
	})
}

// aptExceptions are the host's exceptions from apt's checks of a mirror's age.
// Who has them uses a mirror that stands still, and then neither a bootstrap nor
// apt in the image does without them.
func aptExceptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil // a host without apt
	}
	var exceptions []string
	for line := range strings.Lines(string(out)) {
		option := strings.TrimRight(line, ";\n")
		if option == `Acquire::Check-Valid-Until "false"` || option == `Acquire::Check-Date "false"` {
			exceptions = append(exceptions, option)
		}
	}
	return exceptions
}

// forgetHost takes from a new tree what both bootstraps copy into it from the
// host on which it is built. A machine gets its resolv.conf when it starts.
func forgetHost(root, image string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, path := range []string{"etc/resolv.conf", "etc/hostname"} {
		if err := removeIfThere(tree, path); err != nil {
			return err
		}
	}
	return writeFile(tree, "etc/hostname", []byte(hostname(image)+"\n"), 0o644)
}

// forgetMachine takes from a tree the identity that installing systemd and dbus
// gave it, so that each machine has its own. An empty machine-id is a fresh one
// at each boot without the ceremonies of a first boot; see machine-id(5).
func forgetMachine(root string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Lstat("etc"); errors.Is(err, fs.ErrNotExist) {
		return nil // what else is missing is for Check to say
	}
	for _, path := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if err := removeIfThere(tree, path); err != nil {
			return err
		}
	}
	return writeFile(tree, "etc/machine-id", nil, 0o444)
}

// hostname makes a host name of an image's name.
func hostname(image string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, image)
	return cmp.Or(strings.Trim(name[:min(len(name), 63)], "-"), "localhost")
}
