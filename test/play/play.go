// Package play plays CI jobs from end to end: a host, an image made from one of
// the example playbooks, and the jobs in machines of their own, called stage by
// stage as gitlab-runner would.
//
// Where systemd does not run this machine, the host is a lab. What takes long
// is kept between runs in the cache: the tree of the lab, and the image.
package play

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/packages"
	"nspawn-runner/test/harness"
	"nspawn-runner/test/suite"
)

// Play is what is played.
type Play struct {
	Name  string // of the directory in the cache that keeps the image
	Image string // what the jobs run in, made from playbooks/IMAGE.yaml
	// Services are the images of their services, made likewise.
	Services []string
	Jobs     []Job
	Out      io.Writer

	start time.Time
	// command makes a command that runs on the host.
	command func(ctx context.Context, argv ...string) *exec.Cmd
	// Paths, the same on this machine and in a lab.
	kept, tools, state, config string
}

// Job is one of the jobs.
type Job struct {
	Name string
	File string   // the content of the simulator's job file
	Args []string // more for the simulator's command line
}

// Run plays the jobs, one after the other, and looks for what they leave behind.
// Its error says which failed. It must run as root, in the repository.
func (p *Play) Run(ctx context.Context) error {
	p.start = time.Now()
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

func (p *Play) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("must run as root, or with sudo")
	}
	p.step("building the driver")
	var err error
	if p.tools, err = suite.Compile(ctx, "./test/gitlab/simulate"); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if err := p.setUp(); err != nil {
		return err
	}
	if host.RunsSystemd() {
		return p.here(ctx)
	}
	return p.inLab(ctx)
}

// setUp makes the directory that is kept: the state directory, the driver's
// configuration, and the playbooks.
func (p *Play) setUp() error {
	cache, err := harness.CacheDir()
	if err != nil {
		return err
	}
	p.kept = filepath.Join(cache, p.Name)
	p.state, p.config = filepath.Join(p.kept, "state"), filepath.Join(p.kept, "config.yaml")
	playbooks := filepath.Join(p.kept, "playbooks")
	config := fmt.Sprintf("state_dir: %s\nplaybook_dir: %s\n", p.state, playbooks)
	if err := errors.Join(os.MkdirAll(p.state, 0o700), os.MkdirAll(playbooks, 0o755), os.WriteFile(p.config, []byte(config), 0o644)); err != nil {
		return err
	}
	for _, image := range p.images() {
		text, err := os.ReadFile(filepath.Join("playbooks", image+".yaml"))
		if err == nil {
			err = os.WriteFile(filepath.Join(playbooks, image+".yaml"), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// images are the names of all images that the jobs need.
func (p *Play) images() []string { return append([]string{p.Image}, p.Services...) }

// inLab plays in a lab.
func (p *Play) inLab(ctx context.Context) error {
	if err := harness.Need(ctx, p.Out, harness.LabPackages...); err != nil {
		return err
	}
	p.step("systemd does not run this machine: booting a lab that has one, in systemd-nspawn")
	lab, err := harness.StartLab(ctx, harness.LabOptions{
		Binds:    map[string]string{p.kept: p.kept},
		ReadOnly: map[string]string{p.tools: p.tools},
		Out:      p.Out,
	})
	if err != nil {
		return err
	}
	defer lab.Stop()
	p.command = lab.Command
	return errors.Join(p.jobs(ctx), lab.Stop())
}

// here plays on this machine, with a state directory of its own.
func (p *Play) here(ctx context.Context) error {
	if err := harness.Need(ctx, p.Out, packages.Names(packages.Needed)...); err != nil {
		return err
	}
	p.command = func(ctx context.Context, argv ...string) *exec.Cmd {
		return exec.CommandContext(ctx, argv[0], argv[1:]...)
	}
	return p.jobs(ctx)
}

// jobs makes the image if need be and plays the jobs.
func (p *Play) jobs(ctx context.Context) error {
	driver := filepath.Join(p.tools, "nspawn-runner")
	for _, image := range p.images() {
		if p.command(ctx, "test", "-e", filepath.Join(p.state, image)).Run() == nil {
			p.step("using image %s, which an earlier run created", image)
			continue
		}
		p.step("creating image %s from playbooks/%s.yaml (a minute or two; kept for the next time)", image, image)
		create := p.command(ctx, driver, "--config", p.config, "chroot-create", image)
		create.Stdout, create.Stderr = p.Out, p.Out
		if err := create.Run(); err != nil {
			return fmt.Errorf("create image %s: %w", image, err)
		}
	}
	ready := time.Since(p.start)
	var failed error
	for _, job := range p.Jobs {
		p.step("running job %s in a machine of its own, as gitlab-runner would", job.Name)
		fmt.Fprintln(p.Out)
		args := append([]string{filepath.Join(p.tools, "simulate"), "--driver", driver, "--config", p.config}, job.Args...)
		play := p.command(ctx, append(args, "/dev/stdin")...)
		play.Stdin = strings.NewReader(job.File)
		play.Stdout, play.Stderr = p.Out, os.Stderr
		if err := play.Run(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("job %s failed: %w", job.Name, err))
		}
		fmt.Fprintln(p.Out)
	}
	if err := p.nothingLeft(ctx); err != nil {
		return errors.Join(failed, err)
	}
	p.step("done: %.0f s before the first job, %.0f s in all", ready.Seconds(), time.Since(p.start).Seconds())
	return failed
}

// nothingLeft searches the host for what the jobs may have left, once the deletion
// of big trees, which goes on in the background, is done.
func (p *Play) nothingLeft(ctx context.Context) error {
	look := fmt.Sprintf(`timeout 120 sh -c 'while systemctl --quiet is-active "nspawn-runner_trash*.service"; do sleep 0.1; done'
machinectl list --no-legend
systemctl list-units --all --plain --no-legend 'nspawn-runner*'
grep -E '\.machines/' /proc/mounts
ls -A %[1]s/.machines %[1]s/.trash | grep -v -e : -e '^$'
true`, p.state)
	out, err := p.command(ctx, "sh", "-c", look).Output()
	if err != nil {
		return fmt.Errorf("look for what is left: %w", err)
	}
	if left := strings.TrimSpace(string(out)); left != "" {
		return fmt.Errorf("something was left behind:\n%s", left)
	}
	p.step("nothing is left: no machine, no unit, no mount, no directory")
	return nil
}

// step says what comes next.
func (p *Play) step(format string, args ...any) {
	fmt.Fprintf(p.Out, "[%5.1f s] "+format+"\n", append([]any{time.Since(p.start).Seconds()}, args...)...)
}
