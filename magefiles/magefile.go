//go:build mage

// Recipes for administrators of nspawn-runner and for its developers. Each is
// a few lines over the packages runner and test/suite; `go tool mage -l` lists
// them, `go tool mage -h TARGET` explains one.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/magefile/mage/mg"

	"nspawn-runner/packaging"
	"nspawn-runner/runner"
	"nspawn-runner/test/demo"
	"nspawn-runner/test/self"
	"nspawn-runner/test/suite"
)

// Aliases are the short names of what is typed most.
var Aliases = map[string]any{
	"test":  Test.All,
	"demo":  Demo.Job,
	"bench": Bench.Jobs,
	"soak":  Soak.All,
}

// Chroot creates and maintains the images of this host.
type Chroot mg.Namespace

// Create makes the chroot of image NAME, from its playbook if it has one.
func (Chroot) Create(ctx context.Context, name string) error {
	return building(func(h *runner.Host) error {
		generation, err := h.Create(ctx, name, os.Getenv("SUITE"))
		if err == nil {
			fmt.Fprintf(os.Stderr, "%s: created, generation %s\n", name, generation)
		}
		return err
	})
}

// List prints the images of this host: name and path.
func (Chroot) List() error {
	return onHost(func(h *runner.Host) error {
		images, err := h.Images()
		for _, i := range images {
			fmt.Println(i.Name, i.Path)
		}
		return err
	})
}

// Login opens a shell in a copy of the chroot of image NAME, and publishes it when the shell ends with 0.
func (Chroot) Login(ctx context.Context, name string) error {
	return building(func(h *runner.Host) error {
		generation, err := h.Edit(ctx, name, false, runner.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
		if err == nil {
			fmt.Fprintf(os.Stderr, "%s: published, generation %s\n", name, generation)
		}
		return err
	})
}

// Maintenance runs the playbooks of all images and creates what is missing.
func (Chroot) Maintenance(ctx context.Context) error {
	return building(func(h *runner.Host) error {
		all, err := h.Maintain(ctx, runner.Maintenance{})
		var failed []string // the events have said why
		for _, m := range all {
			if m.Err() != nil {
				failed = append(failed, m.Image)
			}
		}
		if failed != nil {
			return fmt.Errorf("maintenance of %d of %d images failed: %s", len(failed), len(all), strings.Join(failed, ", "))
		}
		return err
	})
}

// Toml prints the block for gitlab-runner's config.toml, with the program that install puts in place.
func Toml() error {
	return onHost(func(h *runner.Host) error {
		text, err := h.TOML(os.Getenv("NAME"), os.Getenv("URL"), os.Getenv("TOKEN_FILE"), os.Getenv("DEFAULT_IMAGE"), strings.Fields(os.Getenv("ALLOW_IMAGE")))
		fmt.Print(text)
		return err
	})
}

// onHost does something to the images of this host.
func onHost(do func(*runner.Host) error) error {
	h, err := runner.New(runner.Options{
		ConfigFile: os.Getenv("CONFIG"),
		Program:    packaging.Local.Program(), // and not mage: machines are started by it, and jobs
		Events: func(e runner.Event) {
			if line := e.String(); line != "" {
				fmt.Fprintln(os.Stderr, line)
			}
		},
	})
	if err != nil {
		return err
	}
	return do(h)
}

// building is onHost for what makes chroots: the installed program starts the
// machines in which they are tested.
func building(do func(*runner.Host) error) error {
	if _, err := os.Stat(packaging.Local.Program()); err != nil {
		return fmt.Errorf("%w: go tool mage install puts it there", err)
	}
	return onHost(do)
}

// Demo shows it all.
type Demo mg.Namespace

// Job runs a real CI job in a machine of its own, in a lab if need be: the short way to see it all.
func (Demo) Job(ctx context.Context) error { return demo.Run(ctx, os.Stdout) }

// Services runs a CI job that uses PostgreSQL and Redis, each in a machine beside its own.
func (Demo) Services(ctx context.Context) error { return demo.RunServices(ctx, os.Stdout) }

// buildDir is where Build puts the program.
const buildDir = "build"

// Build compiles the driver to build/nspawn-runner.
func Build(ctx context.Context) error {
	program, err := packaging.Build(ctx, buildDir)
	if err == nil {
		fmt.Println(program)
	}
	return err
}

// Lint checks formatting, vets, and runs staticcheck and, where its data can be had, govulncheck.
func Lint(ctx context.Context) error { return suite.Run(ctx, os.Stdout, suite.Lint) }

// Bench measures, side by side with the plain tools.
type Bench mg.Namespace

// Jobs measures what a job costs beyond its script.
func (Bench) Jobs(ctx context.Context) error { return suite.Bench(ctx, os.Stdout) }

// Images measures how long it takes to create and maintain images; some minutes.
func (Bench) Images(ctx context.Context) error { return suite.BenchImages(ctx, os.Stdout) }

// Services measures how long it takes until a job can use PostgreSQL and Redis, beside podman; OTHER=PATH compares another build of the driver.
func (Bench) Services(ctx context.Context) error {
	return suite.BenchServices(ctx, os.Stdout, os.Getenv("OTHER"))
}

// Test runs tests.
type Test mg.Namespace

// All runs all tests there are: unit, images, lab, what runs on a Debian, and VM.
func (Test) All(ctx context.Context) error {
	if err := suite.SetUp(ctx, os.Stdout); err != nil {
		return err
	}
	return suite.Run(ctx, os.Stdout, suite.Unit, suite.Fuzz(5*time.Second), suite.Images, suite.Harness,
		suite.Package(""), // which the VM installs, too
		suite.Lab(os.Getenv("SUITE"), os.Getenv("RUN")), suite.VM("", ""),
		suite.Debian(os.Getenv("SUITE"), ""), suite.MatrixCorners)
}

// Unit runs the unit tests, plain and with the race detector.
func (Test) Unit(ctx context.Context) error { return suite.Run(ctx, os.Stdout, suite.Unit) }

// Images builds images for real on this machine.
func (Test) Images(ctx context.Context) error { return suite.Run(ctx, os.Stdout, suite.Images) }

// Lab runs the integration tests in a lab; RUN=pattern picks some, SUITE=trixie makes lab and machines of that release.
func (Test) Lab(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.Lab(os.Getenv("SUITE"), os.Getenv("RUN")))
}

// Debian runs in machines what runs on a Debian: containers, package builds, daemons; RUN=/group/image/backend picks some, SUITE=trixie makes the lab of that release.
func (Test) Debian(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.Debian(os.Getenv("SUITE"), os.Getenv("RUN")))
}

// DebianVM runs in machines of a VM what runs on a Debian; RUN=/group picks some, SUITE=trixie makes VM and machines of that release.
func (Test) DebianVM(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.DebianVM(os.Getenv("SUITE"), os.Getenv("RUN")))
}

// Package builds the Debian package, and installs, upgrades and removes it in a lab; SUITE=trixie makes the lab of that release.
func (Test) Package(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.Package(os.Getenv("SUITE")))
}

// Matrix runs builds and jobs on hosts of each release with images of each, on each backend, and prints a table; RUN=/host/image/backend picks some.
func (Test) Matrix(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.Matrix(os.Getenv("RUN")))
}

// Vm runs in a VM the tests that need a kernel of their own; RUN=pattern picks some, SUITE=trixie makes VM and machines of that release.
func (Test) Vm(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.VM(os.Getenv("SUITE"), os.Getenv("RUN")))
}

// Self plays this project's own CI jobs, lint, build and unit of .gitlab-ci.yml, on its own driver; RUN=job picks one.
func (Test) Self(ctx context.Context) error { return self.Run(ctx, os.Stdout, os.Getenv("RUN")) }

// Attack tries, most of it in a lab, what SECURITY.md says that jobs cannot do, and lists each attempt.
func Attack(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.AttackPulls, suite.Lab(os.Getenv("SUITE"), suite.Attacks))
}

// Fuzz feeds each parser of outside input what it has never seen, EACH=1m long.
func Fuzz(ctx context.Context) error {
	each, err := time.ParseDuration(cmp.Or(os.Getenv("EACH"), "1m"))
	if err != nil {
		return err
	}
	return suite.Run(ctx, os.Stdout, suite.Fuzz(each))
}

// Soak goes on until something breaks, or long enough.
type Soak mg.Namespace

// All plays jobs by the thousand, and then cuts a VM's power; two and a half hours.
func (Soak) All(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.SoakJobs(os.Getenv("JOBS")), suite.SoakPower(os.Getenv("CUTS")))
}

// Jobs plays JOBS jobs (1000) on each backend in a lab, some of them killed, canceled or out of time; twenty minutes.
func (Soak) Jobs(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.SoakJobs(os.Getenv("JOBS")))
}

// Power cuts a VM's power in the middle of publications, CUTS times (50), until an image is broken; two hours.
func (Soak) Power(ctx context.Context) error {
	return suite.Run(ctx, os.Stdout, suite.SoakPower(os.Getenv("CUTS")))
}
