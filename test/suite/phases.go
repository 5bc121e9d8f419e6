package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nspawn-runner/packaging"
	"nspawn-runner/test/harness"
)

// SetUp installs the packages that all phases need, or says at once which are
// missing.
func SetUp(ctx context.Context, out io.Writer) error {
	packages := slices.Concat(unitPackages, imagePackages, harness.LabPackages, harness.VMPackages)
	slices.Sort(packages)
	return harness.Need(ctx, out, slices.Compact(packages)...)
}

// unitPackages are what the race detector needs.
var unitPackages = []string{"gcc", "libc6-dev"}

// repetitions is a pattern for tests that do again and again what others do once: with the race
// detector, which sees the same in each, they would take longer than all others together.
const repetitions = "^TestWhateverIsKilledAtAnyMoment|^TestWhereverTheDiskGetsFull"

// Unit runs the unit tests, plain and with the race detector.
func Unit(s *Suite, ctx context.Context) error {
	if err := harness.Need(ctx, s.Out, unitPackages...); err != nil {
		return err
	}
	packages, err := exec.CommandContext(ctx, "go", "list", "./...").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	var units []string
	for _, pkg := range strings.Fields(string(packages)) {
		// These need a host, or make one.
		if !slices.ContainsFunc([]string{"/test/integration", "/test/harness", "/test/installed"}, func(p string) bool { return strings.HasSuffix(pkg, p) }) {
			units = append(units, pkg)
		}
	}
	// Where there are no loop devices, as in a machine, the tests take longer.
	defer func() { s.env = nil }()
	if dir, unmount, err := newFileSystem(ctx); err == nil {
		s.env = []string{"TMPDIR=" + dir}
		defer func() {
			if err := unmount(); err != nil {
				fmt.Fprintln(s.Out, err)
			}
		}()
	}
	plain := s.phase("unit tests", func() error {
		return s.goTest(ctx, "unit", append([]string{"test", "-v"}, units...)...)
	})
	race := s.phase("unit tests with the race detector", func() error {
		// Each program with the detector sleeps a second before it exits, and tests start many.
		s.env = append(s.env, "GORACE=atexit_sleep_ms=0")
		s.results.skips = append(s.results.skips, "race: "+repetitions+": they repeat what other tests do once")
		return s.goTest(ctx, "race", append([]string{"test", "-race", "-v", "-skip=" + repetitions}, units...)...)
	})
	return errors.Join(plain, race)
}

// Images builds images for real, on this machine: each bootstrap there is, and
// a playbook with everything that playbooks use.
func Images(s *Suite, ctx context.Context) error {
	if err := harness.Need(ctx, s.Out, imagePackages...); err != nil {
		return err
	}
	return s.phase("images, for real", func() (err error) {
		dir, unmount, err := newFileSystem(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unmount()) }()
		cmd := exec.CommandContext(ctx, "go", "test", "-v", "-count=1", "-run=Real", "./runner/image")
		cmd.Env = append(os.Environ(), "NSPAWN_RUNNER_REAL=1", "TMPDIR="+dir)
		return s.tests(&reader{where: "images"}, cmd)
	})
}

// newFileSystem mounts a new ext4, with a journal, on a directory of its own. Without a
// journal, as machines in clouds may have it, an ext4 makes new files slowly where many
// were removed in the minutes before: recently_deleted() in fs/ext4/ialloc.c.
func newFileSystem(ctx context.Context) (dir string, unmount func() error, err error) {
	dir, err = os.MkdirTemp("", "i") // short: sockets lie below it, whose paths are bounded (unix(7))
	if err != nil {
		return "", nil, err
	}
	// The file has no name any more once it is mounted.
	script := "truncate -s 20G $0.img && mkfs.ext4 -q $0.img && mount -o loop,noinit_itable $0.img $0 && chmod 1777 $0; s=$?; rm $0.img; exit $s"
	if out, err := exec.CommandContext(ctx, "sh", "-c", script, dir).CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("a file system for images: %w: %s", err, out), os.Remove(dir))
	}
	return dir, func() error {
		out, err := exec.Command("umount", dir).CombinedOutput()
		if err != nil { // a process is still in it
			err = fmt.Errorf("umount: %w: %s", err, out)
			_ = exec.Command("umount", "--lazy", dir).Run()
		}
		return errors.Join(err, os.Remove(dir))
	}, nil
}

// imagePackages are what building images needs.
var imagePackages = []string{"systemd-container", "mmdebstrap", "debootstrap", "ansible-core", "eatmydata", "btrfs-progs", "e2fsprogs", "gpg", "gpg-agent"}

// goTest runs `go ARGS` and reads what the tests say.
func (s *Suite) goTest(ctx context.Context, where string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), s.env...)
	return s.tests(&reader{where: where, brief: true}, cmd)
}

// tests runs a command that prints like `go test -v`.
func (s *Suite) tests(r *reader, cmd *exec.Cmd) error {
	from, to := io.Pipe()
	cmd.Stdout, cmd.Stderr = to, to
	done := make(chan error, 1)
	r.out, r.results = s.Out, &s.results
	go func() { done <- r.read(from) }()
	before := len(s.results.failures)
	err := cmd.Run()
	to.Close()
	if readErr := <-done; err == nil {
		err = readErr
	}
	if err != nil && len(s.results.failures) == before {
		r.brokeOff()
	}
	return err
}

// Where things lie in a host.
const (
	hostBuild     = "/opt/nspawn-runner"
	hostFaults    = hostBuild + "/faults"
	hostBase      = "/opt/base"
	hostScratch   = harness.Scratch
	hostTestdata  = "/opt/testdata"
	hostUnits     = hostBuild + "/units"
	hostPlaybooks = "/opt/playbooks"
	hostRegistry  = "/opt/docker-registry"
	hostPackaging = "/opt/packaging"
	hostDeb       = hostBuild + "/nspawn-runner.deb"
)

// testCommand is the command that runs the integration tests in a host, with more
// variables in its environment.
func testCommand(host, base, run string, more ...string) []string {
	return slices.Concat([]string{"env",
		"NSPAWN_RUNNER_HOST=" + host,
		"NSPAWN_RUNNER_DRIVER=" + hostBuild + "/nspawn-runner",
		"NSPAWN_RUNNER_FAULTS=" + hostFaults + "/nspawn-runner",
		"NSPAWN_RUNNER_SIMULATE=" + hostBuild + "/simulate",
		"NSPAWN_RUNNER_JOBS=" + os.Getenv("JOBS"),
		"NSPAWN_RUNNER_SEED=" + os.Getenv("SEED"),
		"NSPAWN_RUNNER_BASE=" + base,
		"NSPAWN_RUNNER_SCRATCH=" + hostScratch,
		"NSPAWN_RUNNER_TESTDATA=" + hostTestdata,
		"NSPAWN_RUNNER_UNITS=" + hostUnits,
		"NSPAWN_RUNNER_PLAYBOOKS=" + hostPlaybooks,
		"NSPAWN_RUNNER_REGISTRY=" + hostRegistry + "/usr/bin/docker-registry",
		"NSPAWN_RUNNER_PACKAGING=" + hostPackaging,
		"NSPAWN_RUNNER_DEB=" + hostDeb,
	}, more, []string{hostBuild + "/integration.test", "-test.v", "-test.timeout=40m", "-test.run=" + run})
}

// prepareHost compiles what runs in a host.
func prepareHost(ctx context.Context) error {
	dir, err := Compile(ctx, "./test/gitlab/simulate")
	if err != nil {
		return err
	}
	// With the tag faults the driver says when it comes to its marks.
	if _, err := packaging.Build(ctx, filepath.Join(dir, "faults"), "-tags=faults"); err != nil {
		return err
	}
	if err := (packaging.Layout{Programs: hostBuild}).WriteUnits(filepath.Join(dir, "units")); err != nil {
		return err
	}
	return compileTests(ctx, "./test/integration", "integration.test")
}

// Lab runs the integration tests in a lab of a Debian release, with machines of
// the same one; "" is bookworm. run is a pattern for the tests' names, "" for all,
// more are variables for them.
func Lab(release, run string, more ...string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		var lab *harness.Lab
		err := s.phase("lab: set-up", func() error {
			base, err := harness.Tree(ctx, s.Out, harness.BaseTree.Of(release))
			if err == nil {
				lab, err = s.startLab(ctx, release, map[string]string{base: hostBase})
			}
			return err
		})
		if err != nil {
			return err
		}
		tests := s.phase("lab: integration tests", func() error {
			argv := testCommand("lab", hostBase, run, more...)
			return s.tests(&reader{where: "lab"}, lab.Command(ctx, argv...))
		})
		return errors.Join(tests, s.phase("lab: stop", lab.Stop))
	}
}

// startLab boots a lab of a release in which the integration tests can run, and which
// sees trees for images.
func (s *Suite) startLab(ctx context.Context, release string, trees map[string]string) (*harness.Lab, error) {
	if err := harness.Need(ctx, s.Out, harness.LabPackages...); err != nil {
		return nil, err
	}
	if err := prepareHost(ctx); err != nil {
		return nil, err
	}
	registry, err := harness.Package(ctx, s.Out, "docker-registry")
	if err != nil {
		return nil, err
	}
	seen := maps.Clone(trees)
	seen[registry] = hostRegistry
	for dir, at := range map[string]string{buildDir: hostBuild, "test/integration/testdata": hostTestdata, "playbooks": hostPlaybooks, "packaging": hostPackaging} {
		path, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		seen[path] = at
	}
	return harness.StartLab(ctx, harness.LabOptions{Tree: harness.LabTree.Of(release), ReadOnly: seen, Out: s.Out})
}

// Attacks is a pattern for the tests that attack as a hostile job would.
const Attacks = "^TestAttacks"

// AttackPulls runs the tests that attack as hostile registries and images would. They need root,
// and no host.
func AttackPulls(s *Suite, ctx context.Context) error {
	return s.phase("attacks by registries and their images", func() error {
		return s.goTest(ctx, "pulls", "test", "-v", "-run="+Attacks, "./runner/oci/...")
	})
}

// Harness tests the harness itself: that labs and VMs leave nothing behind.
func Harness(s *Suite, ctx context.Context) error {
	err := s.phase("harness: set-up", func() error {
		return harness.Need(ctx, s.Out, append(harness.LabPackages, harness.VMPackages...)...)
	})
	if err != nil {
		return err
	}
	return s.phase("harness: its own tests", func() error {
		return s.goTest(ctx, "harness", "test", "-short", "-v", "./test/harness")
	})
}
