package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

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

// debDir is where the built packages are.
const debDir = buildDir + "/deb"

// Where things lie in the lab that builds packages.
const (
	debGo     = "/usr/local/go"
	debCache  = "/var/cache/go"
	debSource = "/source"
	debOut    = "/out"
)

// debScript builds the source package and a binary package for each of some architectures.
// The profile says that Go is here without being a package: no release of Debian has the
// version that go.mod wants.
//
// All is built a second time, elsewhere and otherwise. That must give the same files.
const debScript = `set -eu
export PATH=` + debGo + `/bin:$PATH HOME=/root GOCACHE=` + debCache + `
build() { # in a directory, for an architecture, what
	profiles=pkg.nspawn-runner.go
	[ "$2" = "$(dpkg --print-architecture)" ] || profiles=$profiles,cross,nocheck
	mkdir -p "$1"
	[ -e "$1/nspawn-runner" ] || cp -R --preserve=mode,timestamps ` + debSource + ` "$1/nspawn-runner"
	(cd "$1/nspawn-runner" && dpkg-buildpackage --host-arch="$2" --build="$3" --build-profiles=$profiles \
		--no-sign --ignore-builtin-builddeps)
}
build_all() { # in a directory, for architectures
	dir=$1 what=source,binary
	shift
	for arch; do
		build "$dir" "$arch" $what
		what=binary
	done
}
(umask 022; build_all ` + harness.Scratch + `/build "$@")
(umask 077; export TZ=Pacific/Kiritimati LC_ALL=C; build_all ` + harness.Scratch + `/again/elsewhere "$@")
cd ` + harness.Scratch + `/again/elsewhere
for file in *.deb *.dsc *.tar.*; do
	cmp "$file" "` + harness.Scratch + `/build/$file"
done
cp ` + harness.Scratch + `/build/nspawn-runner_* ` + debOut + `
`

// lintianScript checks all packages, and fails if there is something that no override
// explains.
const lintianScript = `set -eu
cd ` + debOut + `
for changes in *.changes; do
	lintian --allow-root --pedantic --display-info --fail-on=error,warning,info,pedantic "$changes"
done
`

// Package builds the Debian package and does with it, in a lab of a release, "" for bookworm,
// what an administrator does: test/installed.
func Package(release string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		err := s.phase("package: build", func() error {
			if err := harness.Need(ctx, s.Out, harness.LabPackages...); err != nil {
				return err
			}
			all, ctx := errgroup.WithContext(ctx)
			all.Go(func() error {
				_, err := Deb(ctx, s.Out, debDir, runtime.GOARCH)
				return err
			})
			all.Go(func() error {
				_, err := harness.Tree(ctx, s.Out, harness.FreshTree.Of(release))
				return err
			})
			all.Go(func() error {
				if err := command(ctx, "go", "build", "-trimpath", "-o", buildDir+"/", "./test/gitlab/simulate"); err != nil {
					return err
				}
				_, err := packaging.Build(ctx, filepath.Join(buildDir, "faults"), "-tags=faults")
				return err
			})
			return all.Wait()
		})
		if err != nil {
			return err
		}
		return s.phase("package: installation to purge", func() error {
			top, err := os.Getwd()
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout=20m", "./test/installed")
			cmd.Env = append(os.Environ(), "NSPAWN_RUNNER_DEB="+filepath.Join(top, debDir), "NSPAWN_RUNNER_BUILD="+filepath.Join(top, buildDir), "NSPAWN_RUNNER_SUITE="+release)
			return s.tests(&reader{where: "package"}, cmd)
		})
	}
}

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
	for _, step := range []struct {
		what, script string
		args         []string
	}{
		{"Building the packages for " + strings.Join(archs, " and ") + ", twice, a minute or two", debScript, archs},
		{"Checking them with lintian", lintianScript, nil},
	} {
		fmt.Fprintln(out, step.what)
		argv := append([]string{"sh", "-c", step.script, "sh"}, step.args...)
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
