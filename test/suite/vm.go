package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/test/harness"
)

// The VM is booted four times, with the same disks: it ends first with a reboot
// and then with two power cuts. At the reboot and the first cut machines run, at
// both cuts images are being published; the boot that follows shows what became of
// them. These are patterns of tests' names.
const (
	// firstBoot is what needs a kernel of its own, and enough of the other tests
	// to show that a VM is a host like any other. Under TCG everything takes ten
	// times as long.
	firstBoot   = "InAVM|TestAJobRunsInABootedMachineOfItsOwn|TestTheScriptsExitCodeIsTheJobs|LeaveTwoMachinesRunning"
	lastBefore  = "LeaveTheDebianPackage"
	afterReboot = "AfterAReboot|LeaveTenMachinesRunning"
	afterCut    = "AfterAPowerCutGarbageCollection"
	untilCut    = "UntilThePowerIsCut"
	checkCut    = "AfterAPowerCutEachChroot"
)

// VM runs tests in a VM of a Debian release, "" for bookworm, with machines of the same one:
// those that need a kernel of their own, and those that look at what machines leave that run
// when their host goes down. run picks some tests by a pattern for their names; there is one
// boot for them then.
func VM(release, run string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error { return s.vm(ctx, release, run) }
}

func (s *Suite) vm(ctx context.Context, release, run string) error {
	options, remove, err := s.vmOptions(ctx, release)
	if err != nil {
		return err
	}
	defer remove()
	if run != "" {
		return s.phase("vm: integration tests", func() error { return s.inVM(ctx, options, cut{}, run) })
	}
	first := s.phase("vm: integration tests, then a reboot", func() error {
		o := options
		o.Reboot = true
		return s.inVM(ctx, o, cut{}, firstBoot, lastBefore)
	})
	cuts := newCuts(s.Out)
	firstCut, secondCut := cuts.draw(), cuts.draw()
	second := s.phase("vm: after the reboot, then a power cut", func() error {
		return s.untilPowerCut(ctx, options, cut{}, firstCut, afterReboot, untilCut)
	})
	third := s.phase("vm: after the power cut, then another", func() error {
		return s.untilPowerCut(ctx, options, firstCut, secondCut, afterCut, checkCut, untilCut)
	})
	fourth := s.phase("vm: after the second power cut", func() error {
		return s.inVM(ctx, options, secondCut, checkCut)
	})
	return errors.Join(first, second, third, fourth)
}

// vmOptions makes all that a VM of a release needs. Its disks are there until remove is called.
func (s *Suite) vmOptions(ctx context.Context, release string) (options harness.VMOptions, remove func(), err error) {
	dir, err := os.MkdirTemp("", "nspawn-runner-vm-")
	if err != nil {
		return options, nil, err
	}
	err = s.phase("vm: set-up", func() error {
		options, err = s.vmOn(ctx, release, dir)
		return err
	})
	if err != nil {
		os.RemoveAll(dir)
		return options, nil, err
	}
	return options, func() { os.RemoveAll(dir) }, nil
}

// vmOn is a VM of a release whose disks are in a directory.
func (s *Suite) vmOn(ctx context.Context, release, dir string) (harness.VMOptions, error) {
	if err := harness.Need(ctx, s.Out, harness.VMPackages...); err != nil {
		return harness.VMOptions{}, err
	}
	if err := prepareHost(ctx); err != nil {
		return harness.VMOptions{}, err
	}
	base, err := harness.Tree(ctx, s.Out, harness.BaseTree.Of(release))
	if err != nil {
		return harness.VMOptions{}, err
	}
	guest := harness.GuestTree.Of(release)
	if _, err := harness.Guest(ctx, s.Out, guest); err != nil {
		return harness.VMOptions{}, err
	}
	files := map[string]string{
		hostBuild + "/nspawn-runner":    filepath.Join(buildDir, "nspawn-runner"),
		hostBuild + "/integration.test": filepath.Join(buildDir, "integration.test"),
		hostFaults:                      filepath.Join(buildDir, "faults"),
		hostTestdata:                    "test/integration/testdata",
	}
	if built, _ := filepath.Glob(filepath.Join(debDir, "*_amd64.deb")); len(built) > 0 {
		files[hostDeb] = built[0]
	}
	processors := 2
	if guest.Suite != harness.GuestTree.Suite {
		// Linux 6.12 dies in QEMU 7.2 without KVM of an int3 that another processor is just
		// writing or removing (seen).
		processors = 1
	}
	return harness.VMOptions{
		Tree:  guest,
		CPUs:  processors,
		Files: files,
		Disks: []harness.Disk{
			{Path: filepath.Join(dir, "scratch"), Label: "scratch", FS: "ext4", Size: 8 << 30, From: base, Mount: hostScratch},
			{Path: filepath.Join(dir, "btrfs"), Label: "btrfs", FS: "btrfs", Size: 8 << 30, From: base, Mount: hostScratch + "/btrfs"},
		},
		Root:    filepath.Join(dir, "root"),
		Journal: os.Getenv("NSPAWN_RUNNER_JOURNAL"),
		Limit:   30 * time.Minute,
		Out:     s.Out,
	}, nil
}

// vmCommand moves the base tree, with which the scratch disk was made, aside
// once, and runs tests: those of one pattern after those of the other, until some
// fail. They know after which power cut they run.
func vmCommand(last cut, runs []string) []string {
	script := fmt.Sprintf("export NSPAWN_RUNNER_CUT='%s' && ", last.line)
	script += fmt.Sprintf(`cd %s && if [ ! -e base ]; then mkdir base && for f in * .[!.]*; do case $f in base|btrfs|lost+found|".[!.]*") ;; *) mv "$f" base/ ;; esac; done; fi`, hostScratch)
	for _, run := range runs {
		script += " && " + strings.Join(testCommand("vm", hostScratch+"/base", "'"+run+"'"), " ")
	}
	return []string{"sh", "-c", script}
}

// inVM boots a VM, runs tests in it, and reads what they say.
func (s *Suite) inVM(ctx context.Context, options harness.VMOptions, last cut, runs ...string) error {
	options.Command = vmCommand(last, runs)
	return s.passes(ctx, options)
}

// passes boots a VM whose command must end well.
func (s *Suite) passes(ctx context.Context, options harness.VMOptions) error {
	status, err := s.boot(ctx, options)
	if err == nil && status != 0 {
		err = fmt.Errorf("the tests ended with status %d", status)
	}
	return err
}

// untilPowerCut is inVM, but the VM's power is cut while the last of the tests go on.
func (s *Suite) untilPowerCut(ctx context.Context, options harness.VMOptions, last, at cut, runs ...string) error {
	options.CutPower, options.CutDelay = at.line, at.delay
	options.Command = vmCommand(last, runs)
	status, err := s.boot(ctx, options)
	switch {
	case errors.Is(err, harness.ErrPowerCut):
		return nil
	case err == nil:
		err = fmt.Errorf("the tests ended with status %d", status)
	}
	return fmt.Errorf("before the power was cut (%s): %w", at, err)
}

// boot boots a VM and reads what the tests in it say.
func (s *Suite) boot(ctx context.Context, options harness.VMOptions) (status int, err error) {
	from, to := io.Pipe()
	options.Output = to
	r := &reader{out: s.Out, results: &s.results, where: "vm"}
	done := make(chan error, 1)
	before := len(s.results.failures)
	go func() { done <- r.read(from) }()
	status, err = harness.RunVM(ctx, options)
	to.Close()
	<-done
	if (err != nil || status != 0) && !errors.Is(err, harness.ErrPowerCut) && len(s.results.failures) == before {
		r.brokeOff()
	}
	return status, err
}
