package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nspawn-runner/packaging"
	"nspawn-runner/test/harness"
)

// debTree is the lab in which Debian packages are built and checked. debhelper of bookworm
// does not know units in /usr/lib/systemd/system.
var debTree = harness.Recipe{
	Kind:  "deb",
	Suite: "trixie",
	Packages: []string{
		"systemd", "systemd-sysv", "procps", "dpkg-dev", "debhelper", "lintian", "man-db",
	},
	Hooks: harness.LabTree.Hooks,
}

// Where things lie in the lab that builds packages.
const (
	debGo     = "/usr/local/go"
	debCache  = "/var/cache/go"
	debSource = "/source"
	debOut    = "/out"
)

// debScript builds the source package and a binary package for each architecture in the
// directory $1, and checks them. The profile says that Go is here without being a package:
// no release of Debian has the version that go.mod wants.
const debScript = `set -eu
umask 022
export PATH=` + debGo + `/bin:$PATH HOME=/root GOCACHE=` + debCache + `
mkdir -p "$1" && cp -R --preserve=mode,timestamps ` + debSource + ` "$1/nspawn-runner" && cd "$1/nspawn-runner"
shift
what=source,binary
for arch; do
	profiles=pkg.nspawn-runner.go
	test "$arch" = "$(dpkg --print-architecture)" || profiles=$profiles,cross,nocheck
	dpkg-buildpackage --host-arch="$arch" --build=$what --build-profiles=$profiles \
		--no-sign --ignore-builtin-builddeps --no-check-builddeps
	what=binary
done
cp ../nspawn-runner_* ` + debOut + `
`

// lintianScript checks all packages, and fails if there is something that no override
// explains.
const lintianScript = `set -eu
cd ` + debOut + `
for changes in *.changes; do
	lintian --allow-root --pedantic --display-info --fail-on=error,warning,info,pedantic "$changes"
done
`

// Deb builds the Debian packages of some architectures, and the source package, into a
// directory, which it empties first. It returns the version.
func Deb(ctx context.Context, out io.Writer, dir string, archs ...string) (version string, err error) {
	if err := harness.Need(ctx, out, harness.LabPackages...); err != nil {
		return "", err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return "", err
	}
	source, err := os.MkdirTemp("", "nspawn-runner-source-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(source)
	if version, err = packaging.Source(ctx, source); err != nil {
		return "", err
	}
	lab, err := startDebLab(ctx, out, source, dir)
	if err != nil {
		return "", err
	}
	defer lab.Stop()
	build := append([]string{"sh", "-c", debScript, "sh", filepath.Join(harness.Scratch, "build")}, archs...)
	for _, argv := range [][]string{build, {"sh", "-c", lintianScript}} {
		if said, err := lab.Command(ctx, argv...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build of the package: %w: %s", err, said)
		}
	}
	return version, lab.Stop()
}

// startDebLab boots a lab in which packages are built with the Go that builds this program.
func startDebLab(ctx context.Context, out io.Writer, source, dir string) (*harness.Lab, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	cache, err := harness.CacheDir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "go")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	return harness.StartLab(ctx, harness.LabOptions{
		Tree:     debTree,
		ReadOnly: map[string]string{strings.TrimSpace(string(root)): debGo, source: debSource},
		Binds:    map[string]string{dir: debOut, cache: debCache},
		Out:      out,
	})
}
