package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"nspawn-runner/test/harness"
)

// The VM is booted three times, with the same disks: it ends first with a
// reboot and then with a power cut, both while machines run, and each boot that
// follows shows what becomes of those.
const (
	// firstBoot is what needs a kernel of its own, and enough of the other tests
	// to show that a VM is a host like any other. Under TCG everything takes ten
	// times as long.
	firstBoot  = "InAVM|TestAJobRunsInABootedMachineOfItsOwn|TestTheScriptsExitCodeIsTheJobs|LeaveMachinesRunning"
	secondBoot = "AfterAReboot|LeaveMachinesRunning"
	thirdBoot  = "AfterAPowerCut"
)

// VM runs tests in a VM: those that need a kernel of their own, and those that
// look at what machines leave that run when their host goes down.
func VM(s *Suite, ctx context.Context) error {
	dir, err := os.MkdirTemp("", "nspawn-runner-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var options harness.VMOptions
	err = s.phase("vm: set-up", func() error {
		options, err = s.vmOptions(ctx, dir)
		return err
	})
	if err != nil {
		return err
	}
	first := s.phase("vm: integration tests, then a reboot", func() error {
		o := options
		o.Reboot = true
		return s.inVM(ctx, o, firstBoot)
	})
	second := s.phase("vm: after the reboot, then a power cut", func() error { return s.untilPowerCut(ctx, options, secondBoot) })
	third := s.phase("vm: after the power cut", func() error { return s.inVM(ctx, options, thirdBoot) })
	return errors.Join(first, second, third)
}

// vmOptions makes all that the VM needs; dir gets its disks.
func (s *Suite) vmOptions(ctx context.Context, dir string) (harness.VMOptions, error) {
	if err := harness.Need(ctx, s.Out, harness.VMPackages...); err != nil {
		return harness.VMOptions{}, err
	}
	if err := prepareHost(ctx); err != nil {
		return harness.VMOptions{}, err
	}
	base, err := harness.Tree(ctx, s.Out, harness.BaseTree)
	if err != nil {
		return harness.VMOptions{}, err
	}
	if _, err := harness.Tree(ctx, s.Out, harness.GuestTree); err != nil {
		return harness.VMOptions{}, err
	}
	return harness.VMOptions{
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
	}, nil
}

// vmCommand moves the base tree, with which the scratch disk was made, aside
// once, and runs the tests.
func vmCommand(run string) []string {
	script := fmt.Sprintf(`cd %s && if [ ! -e base ]; then mkdir base && for f in * .[!.]*; do case $f in base|lost+found|".[!.]*") ;; *) mv "$f" base/ ;; esac; done; fi && exec "$@"`, hostScratch)
	return append([]string{"sh", "-c", script, "sh"}, testCommand("vm", hostScratch+"/base", run)...)
}

// inVM boots a VM, runs tests in it, and reads what they say.
func (s *Suite) inVM(ctx context.Context, options harness.VMOptions, run string) error {
	options.Command = vmCommand(run)
	status, err := s.boot(ctx, options)
	if err == nil && status != 0 {
		err = fmt.Errorf("the tests ended with status %d", status)
	}
	return err
}

// untilPowerCut is inVM, but the VM's power is cut when the tests have passed.
func (s *Suite) untilPowerCut(ctx context.Context, options harness.VMOptions, run string) error {
	options.CutPower = "cut the power"
	script := fmt.Sprintf(`"$@" && echo %q && sleep infinity`, options.CutPower)
	options.Command = append([]string{"sh", "-c", script, "sh"}, vmCommand(run)...)
	status, err := s.boot(ctx, options)
	switch {
	case errors.Is(err, harness.ErrPowerCut):
		return nil
	case err == nil:
		err = fmt.Errorf("the tests ended with status %d", status)
	}
	return fmt.Errorf("before the power was cut: %w", err)
}

// boot boots a VM and reads what the tests in it say.
func (s *Suite) boot(ctx context.Context, options harness.VMOptions) (status int, err error) {
	from, to := io.Pipe()
	options.Output = to
	r := &reader{out: s.Out, results: &s.results, where: "vm"}
	done := make(chan error, 1)
	go func() { done <- r.read(from) }()
	status, err = harness.RunVM(ctx, options)
	to.Close()
	<-done
	if err != nil && !errors.Is(err, harness.ErrPowerCut) {
		r.flushHeld()
	}
	return status, err
}
