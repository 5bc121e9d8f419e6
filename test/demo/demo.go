// Package demo shows the main job from end to end: a host, an image made from
// a playbook, and a CI job in a machine of its own, called stage by stage as
// gitlab-runner would. The job builds a Debian package from its source.
//
// Where systemd does not run this machine, the host is a lab. What takes long
// is kept between runs, the tree of the lab and the image, in the user's cache.
package demo

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

	"nspawn-runner/test/harness"
	"nspawn-runner/test/suite"
)

const (
	image = "bookworm"
	// The state directory of the demo, inside the host, and what is carried in.
	state = "/var/lib/nspawn-runner"
	tools = "/opt/nspawn-runner"
	plays = "/etc/nspawn-runner"
)

// demo is one run.
type demo struct {
	out   io.Writer
	start time.Time
	// command makes a command that runs on the host, in.
	command func(ctx context.Context, argv ...string) *exec.Cmd
	paths
}

// paths are where things lie on the host.
type paths struct{ state, tools, config string }

// Run runs the demo.
func Run(ctx context.Context, out io.Writer) error {
	d := &demo{out: out, start: time.Now()}
	if os.Geteuid() != 0 {
		return errors.New("demo: must run as root: sudo go tool mage demo")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	kept := filepath.Join(cache, "nspawn-runner", "demo")
	if err := os.MkdirAll(filepath.Join(kept, "state"), 0o700); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.step("building the driver")
	build, err := suite.Compile(ctx, "./cmd/nspawn-runner", "./test/gitlab/simulate")
	if err != nil {
		return fmt.Errorf("demo: build: %w", err)
	}
	playbooks, err := filepath.Abs("playbooks")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return d.here(ctx, kept, build, playbooks)
	}
	return d.inLab(ctx, kept, build, playbooks)
}

// inLab runs the demo in a lab.
func (d *demo) inLab(ctx context.Context, kept, build, playbooks string) error {
	if err := harness.Need(ctx, d.out, harness.LabPackages...); err != nil {
		return err
	}
	d.step("systemd does not run this machine: booting a lab that has one, in systemd-nspawn")
	lab, err := harness.StartLab(ctx, harness.LabOptions{
		Binds:    map[string]string{filepath.Join(kept, "state"): state},
		ReadOnly: map[string]string{build: tools, playbooks: plays + "-examples"},
		Out:      d.out,
	})
	if err != nil {
		return err
	}
	defer lab.Stop()
	d.command = lab.Command
	d.paths = paths{state: state, tools: tools, config: "/etc/nspawn-runner.yaml"}
	setUp := fmt.Sprintf("mkdir -p %s && cp %s-examples/%s.yaml %s/ && echo state_dir: %s > %s", plays, plays, image, plays, state, d.config)
	if err := d.run(ctx, "sh", "-c", setUp); err != nil {
		return err
	}
	return errors.Join(d.job(ctx), lab.Stop())
}

// here runs the demo on this machine, with a state directory of its own.
func (d *demo) here(ctx context.Context, kept, build, playbooks string) error {
	if err := harness.Need(ctx, d.out, "systemd-container", "dbus", "mmdebstrap", "ansible-core"); err != nil {
		return err
	}
	d.command = func(ctx context.Context, argv ...string) *exec.Cmd {
		return exec.CommandContext(ctx, argv[0], argv[1:]...)
	}
	d.paths = paths{state: filepath.Join(kept, "state"), tools: build, config: filepath.Join(kept, "config.yaml")}
	one := filepath.Join(kept, "playbooks")
	config := fmt.Sprintf("state_dir: %s\nplaybook_dir: %s\n", d.state, one)
	text, err := os.ReadFile(filepath.Join(playbooks, image+".yaml"))
	if err == nil {
		err = errors.Join(os.MkdirAll(one, 0o755),
			os.WriteFile(filepath.Join(one, image+".yaml"), text, 0o644),
			os.WriteFile(d.config, []byte(config), 0o644))
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return d.job(ctx)
}

// job makes the image if need be and runs the job.
func (d *demo) job(ctx context.Context) error {
	driver := []string{d.tools + "/nspawn-runner", "--config", d.config}
	if d.run(ctx, "test", "-e", filepath.Join(d.state, image)) != nil {
		d.step("creating image %s from playbooks/%s.yaml (a minute or two; kept for the next time)", image, image)
		if err := d.run(ctx, append(driver, "chroot-create", image)...); err != nil {
			return fmt.Errorf("demo: create image %s: %w", image, err)
		}
	}
	d.step("running a job in a machine of its own, as gitlab-runner would")
	fmt.Fprintln(d.out)
	ready := time.Since(d.start)
	play := d.command(ctx, d.tools+"/simulate", "--driver", driver[0], "--config", d.config, "/dev/stdin")
	play.Stdin = strings.NewReader(helloJob)
	play.Stdout, play.Stderr = d.out, os.Stderr
	jobErr := play.Run()
	fmt.Fprintln(d.out)
	if err := d.nothingLeft(ctx); err != nil {
		return errors.Join(jobErr, err)
	}
	d.step("done: %.0f s before the job, %.0f s in all", ready.Seconds(), time.Since(d.start).Seconds())
	if jobErr != nil {
		return fmt.Errorf("demo: the job failed: %w", jobErr)
	}
	return nil
}

// nothingLeft searches the host for what the job may have left.
func (d *demo) nothingLeft(ctx context.Context) error {
	look := fmt.Sprintf(`machinectl list --no-legend
systemctl list-units --all --plain --no-legend 'nspawn-runner*'
grep -E '\.machines/' /proc/mounts
ls -A %[1]s/.machines %[1]s/.trash | grep -v -e : -e '^$'
true`, d.state)
	out, err := d.command(ctx, "sh", "-c", look).Output()
	if err != nil {
		return fmt.Errorf("demo: look for what is left: %w", err)
	}
	if left := strings.TrimSpace(string(out)); left != "" {
		return fmt.Errorf("demo: the job left something behind:\n%s", left)
	}
	d.step("nothing is left: no machine, no unit, no mount, no directory")
	return nil
}

// run runs a command on the host, with its output for people to see.
func (d *demo) run(ctx context.Context, argv ...string) error {
	cmd := d.command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = d.out, d.out
	return cmd.Run()
}

// step says what comes next.
func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "[%5.1f s] "+format+"\n", append([]any{time.Since(d.start).Seconds()}, args...)...)
}
