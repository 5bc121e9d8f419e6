package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// LabPackages are the Debian packages the outer machine needs for a lab.
var LabPackages = []string{"systemd-container", "mmdebstrap", "util-linux", "e2fsprogs"}

// VMPackages are the Debian packages the outer machine needs for a VM.
var VMPackages = []string{"qemu-system-x86", "qemu-utils", "mmdebstrap", "util-linux", "e2fsprogs", "btrfs-progs"}

// Need makes sure that Debian packages are installed on this machine. As root
// it installs what is missing and says so on out; otherwise its error is the
// line to run.
func Need(ctx context.Context, out io.Writer, packages ...string) error {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		return fmt.Errorf("need: this is not Debian: install by hand what these packages hold: %s", strings.Join(packages, " "))
	}
	missing := slices.DeleteFunc(slices.Clone(packages), installed)
	if len(missing) == 0 {
		return nil
	}
	// A new machine may just be installing its updates.
	install := append([]string{"apt-get", "install", "--option=DPkg::Lock::Timeout=600", "--yes", "--no-install-recommends"}, missing...)
	if os.Getuid() != 0 {
		return fmt.Errorf("need: packages are missing: run as root: %s", strings.Join(install, " "))
	}
	fmt.Fprintf(out, "Installing %s\n", strings.Join(missing, " "))
	if quietly(ctx, install...) == nil {
		return nil
	}
	// The commonest cause is a package list that is old, or not there at all.
	return errors.Join(quietly(ctx, "apt-get", "update"), quietly(ctx, install...))
}

// installed reports whether a Debian package is unpacked and configured.
func installed(pkg string) bool {
	status, _ := exec.Command("dpkg-query", "--show", "--showformat=${db:Status-Status}", pkg).Output()
	return string(status) == "installed"
}

// quietly runs a command that asks nothing, and reports its output only if it
// fails.
func quietly(ctx context.Context, argv ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = &output, &output
	return outcome(cmd.Run(), argv, output.Bytes())
}
