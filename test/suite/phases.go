package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
		if !strings.HasSuffix(pkg, "/test/integration") && !strings.HasSuffix(pkg, "/test/harness") {
			units = append(units, pkg)
		}
	}
	plain := s.phase("unit tests", func() error {
		return s.goTest(ctx, "unit", append([]string{"test", "-v"}, units...)...)
	})
	race := s.phase("unit tests with the race detector", func() error {
		return s.goTest(ctx, "race", append([]string{"test", "-race", "-v"}, units...)...)
	})
	return errors.Join(plain, race)
}

// Images builds images for real, on this machine: each bootstrap there is, and
// a playbook with everything that playbooks use.
func Images(s *Suite, ctx context.Context) error {
	if err := harness.Need(ctx, s.Out, imagePackages...); err != nil {
		return err
	}
	return s.phase("images, for real", func() error {
		cmd := exec.CommandContext(ctx, "go", "test", "-v", "-count=1", "-run=Real", "./runner/image")
		cmd.Env = append(os.Environ(), "NSPAWN_RUNNER_REAL=1")
		return s.tests(&reader{where: "images"}, cmd)
	})
}

// imagePackages are what building images needs.
var imagePackages = []string{"systemd-container", "mmdebstrap", "debootstrap", "ansible-core", "eatmydata", "btrfs-progs", "gpg"}

// goTest runs `go ARGS` and reads what the tests say.
func (s *Suite) goTest(ctx context.Context, where string, args ...string) error {
	return s.tests(&reader{where: where, brief: true}, exec.CommandContext(ctx, "go", args...))
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
		// It did not even come to a test: what it printed is the reason.
		r.flushHeld()
	}
	return err
}

// Where things lie in a host.
const (
	hostBuild    = "/opt/nspawn-runner"
	hostBase     = "/opt/base"
	hostScratch  = harness.Scratch
	hostTestdata = "/opt/testdata"
)

// testCommand is the command that runs the integration tests in a host.
func testCommand(host, base, run string) []string {
	return []string{"env",
		"NSPAWN_RUNNER_HOST=" + host,
		"NSPAWN_RUNNER_DRIVER=" + hostBuild + "/nspawn-runner",
		"NSPAWN_RUNNER_BASE=" + base,
		"NSPAWN_RUNNER_SCRATCH=" + hostScratch,
		"NSPAWN_RUNNER_TESTDATA=" + hostTestdata,
		hostBuild + "/integration.test", "-test.v", "-test.timeout=40m", "-test.run=" + run,
	}
}

// prepareHost compiles what runs in a host.
func prepareHost(ctx context.Context) error {
	if _, err := Compile(ctx, "./cmd/nspawn-runner"); err != nil {
		return err
	}
	return compileTests(ctx, "./test/integration", "integration.test")
}

// Lab runs the integration tests in a lab of a Debian release, with machines of
// the same one; "" is bookworm. run is a pattern for the tests' names, "" for all.
func Lab(release, run string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		labTree, baseTree := of(harness.LabTree, release), of(harness.BaseTree, release)
		var lab *harness.Lab
		err := s.phase("lab: set-up", func() error {
			if err := harness.Need(ctx, s.Out, harness.LabPackages...); err != nil {
				return err
			}
			if err := prepareHost(ctx); err != nil {
				return err
			}
			base, err := harness.Tree(ctx, s.Out, baseTree)
			if err != nil {
				return err
			}
			build, err := filepath.Abs(Build)
			if err != nil {
				return err
			}
			testdata, err := filepath.Abs("test/integration/testdata")
			if err != nil {
				return err
			}
			lab, err = harness.StartLab(ctx, harness.LabOptions{
				Tree:     labTree,
				ReadOnly: map[string]string{build: hostBuild, base: hostBase, testdata: hostTestdata},
				Out:      s.Out,
			})
			return err
		})
		if err != nil {
			return err
		}
		tests := s.phase("lab: integration tests", func() error {
			argv := testCommand("lab", hostBase, run)
			return s.tests(&reader{where: "lab"}, lab.Command(ctx, argv...))
		})
		return errors.Join(tests, s.phase("lab: stop", lab.Stop))
	}
}

// of is a recipe for another release. It has a kind of its own, so that the
// cache keeps both trees.
func of(r harness.Recipe, release string) harness.Recipe {
	if release != "" && release != r.Suite {
		r.Kind, r.Suite = r.Kind+release, release
	}
	return r
}

// inVM are the tests that run in the VM: what needs a kernel of its own, and
// enough of the others to show that a VM is a host like any other. Under TCG
// everything takes ten times as long.
const inVM = "InAVM|TestAJobRunsInABootedMachineOfItsOwn|TestTheScriptsExitCodeIsTheJobs"

// VM runs in a VM the tests that need a kernel of their own, and then, after a
// power cut with machines running, those that look at what is left.
func VM(s *Suite, ctx context.Context) error {
	var options harness.VMOptions
	dir, err := os.MkdirTemp("", "nspawn-runner-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = s.phase("vm: set-up", func() error {
		if err := harness.Need(ctx, s.Out, harness.VMPackages...); err != nil {
			return err
		}
		if err := prepareHost(ctx); err != nil {
			return err
		}
		base, err := harness.Tree(ctx, s.Out, harness.BaseTree)
		if err != nil {
			return err
		}
		if _, err := harness.Tree(ctx, s.Out, harness.GuestTree); err != nil {
			return err
		}
		options = harness.VMOptions{
			Files: map[string]string{
				hostBuild + "/nspawn-runner":    filepath.Join(Build, "nspawn-runner"),
				hostBuild + "/integration.test": filepath.Join(Build, "integration.test"),
				hostTestdata:                    "test/integration/testdata",
			},
			Disks: []harness.Disk{{
				Path: filepath.Join(dir, "scratch"), Label: "scratch", FS: "ext4", Size: 8 << 30,
				From: base, Mount: hostScratch,
			}},
			Root:    filepath.Join(dir, "root"),
			Journal: os.Getenv("NSPAWN_RUNNER_JOURNAL"),
			Limit:   30 * time.Minute,
			Out:     s.Out,
		}
		return nil
	})
	if err != nil {
		return err
	}
	tests := s.phase("vm: integration tests", func() error { return s.inVM(ctx, options, inVM) })
	cut := s.phase("vm: power cut with machines running", func() error {
		return s.powerCut(ctx, options)
	})
	after := s.phase("vm: after the power cut", func() error { return s.inVM(ctx, options, "AfterAPowerCut") })
	return errors.Join(tests, cut, after)
}

// vmCommand moves the base tree, with which the scratch disk was made, aside
// once, and runs the tests.
func vmCommand(run string) []string {
	script := fmt.Sprintf(`cd %s && if [ ! -e base ]; then mkdir base && for f in * .[!.]*; do case $f in base|lost+found|".[!.]*") ;; *) mv "$f" base/ ;; esac; done; fi && exec "$@"`, hostScratch)
	return append([]string{"sh", "-c", script, "sh"}, testCommand("vm", hostScratch+"/base", run)...)
}

// inVM boots a VM, runs tests in it, and reads what they say.
func (s *Suite) inVM(ctx context.Context, options harness.VMOptions, run string) error {
	from, to := io.Pipe()
	options.Command, options.Output = vmCommand(run), to
	r := &reader{out: s.Out, results: &s.results, where: "vm"}
	done := make(chan error, 1)
	go func() { done <- r.read(from) }()
	status, err := harness.RunVM(ctx, options)
	to.Close()
	<-done
	if err != nil {
		r.flushHeld()
		return err
	}
	if status != 0 {
		return fmt.Errorf("the tests ended with status %d", status)
	}
	return nil
}

// powerCut boots a VM, waits until machines run in it, and cuts its power.
func (s *Suite) powerCut(ctx context.Context, options harness.VMOptions) error {
	from, to := io.Pipe()
	options.Command, options.Output = vmCommand("LeaveMachinesRunning"), to
	vm, err := harness.StartVM(ctx, options)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := vm.Wait()
		to.Close()
		ended <- err
	}()
	var said strings.Builder
	lines := bufio.NewScanner(from)
	running := false
	for !running && lines.Scan() {
		running = strings.Contains(lines.Text(), "machines are running")
		fmt.Fprintln(&said, lines.Text())
	}
	go io.Copy(io.Discard, from)
	vm.Kill()
	err = <-ended
	switch {
	case !running:
		return fmt.Errorf("no machines came to run: %w\n%s", err, said.String())
	case !errors.Is(err, harness.ErrNoStatus):
		return fmt.Errorf("the VM was not cut short: %w", err)
	}
	return nil
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
