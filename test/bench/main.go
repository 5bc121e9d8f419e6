// Command bench measures, on a host, what nspawn-runner adds to a job, side by
// side in one run with the plain tools that do the same by hand. It prints
// medians and ratios: the machines it runs on are noisy, single figures mean
// little.
//
//	bench -driver PATH -config FILE -state DIR -image NAME [-rounds N]
//	bench -images -plugins DIR ...
//	bench -services [-other PATH] ...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"nspawn-runner/test/gitlab"
)

type bench struct {
	driver, config, state, image string
	other                        string
	plugins                      string
	rounds                       int
	id                           int64
}

func main() {
	var b bench
	flag.StringVar(&b.driver, "driver", "nspawn-runner", "the driver")
	flag.StringVar(&b.config, "config", "/etc/nspawn-runner.yaml", "its configuration")
	flag.StringVar(&b.state, "state", "/var/lib/nspawn-runner", "its state directory")
	flag.StringVar(&b.image, "image", "bookworm", "the image")
	flag.IntVar(&b.rounds, "rounds", 9, "rounds of each measurement")
	images := flag.Bool("images", false, "measure how images are made, and not jobs")
	services := flag.Bool("services", false, "measure jobs with services beside podman")
	flag.StringVar(&b.other, "other", "", "another build of the driver, for -services")
	flag.StringVar(&b.plugins, "plugins", "", "where nspawn-runner's connection plugin for ansible lies, for -images")
	flag.Parse()
	b.id = time.Now().Unix()
	measure := func() error { return b.all(context.Background()) }
	switch {
	case *images:
		measure = b.images
	case *services:
		measure = b.services
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// all runs every measurement, ours and the plain one in turn.
func (b *bench) all(ctx context.Context) error {
	var prepare, plainBoot, run, plainRun, cleanup, plainStop []time.Duration
	for range b.rounds {
		id := b.next()
		ours := func() error { return b.drive("run", "--id", id, "/dev/stdin", "bench") }
		theirs := func() error {
			return command("systemd-run", "--quiet", "--pipe", "--wait", "--machine=run-"+id, "/bin/bash", "-c", "true")
		}
		err := timed(&prepare, func() error { return b.drive("prepare", "--id", id, b.image) })
		// The first in a new machine, whoever's it is, pays for the machine.
		err = errors.Join(err, theirs(), ours())
		for range 3 {
			err = errors.Join(err, timed(&run, ours), timed(&plainRun, theirs))
		}
		if err = errors.Join(err, timed(&cleanup, func() error { return b.drive("cleanup", "--id", id) })); err != nil {
			return err
		}
		plain, err := b.startPlain(&plainBoot)
		if err == nil {
			err = plain.stop(&plainStop)
		}
		if err != nil {
			return err
		}
	}
	fmt.Printf("%-34s %9s   %-42s %9s  %s\n", "nspawn-runner", "median", "by hand", "median", "ratio")
	row("prepare", prepare, "systemd-nspawn --boot until its bus answers", plainBoot)
	row("run of an empty script", run, "systemd-run --machine --pipe --wait true", plainRun)
	row("cleanup", cleanup, "machinectl terminate until gone", plainStop)
	fmt.Println()
	if err := errors.Join(b.limited(), b.breakdown()); err != nil {
		return err
	}

	var one, nothing, ten, tenNothing []time.Duration
	for range b.rounds {
		if err := errors.Join(
			timed(&one, func() error { return b.job(ctx, b.driver) }),
			timed(&nothing, func() error { return b.job(ctx, "") }),
		); err != nil {
			return err
		}
	}
	for range max(1, b.rounds/3) {
		if err := errors.Join(
			timed(&ten, func() error { return b.many(ctx, 10, b.driver) }),
			timed(&tenNothing, func() error { return b.many(ctx, 10, "") }),
		); err != nil {
			return err
		}
	}
	row("a hello job, 7 calls", one, "with a driver that does nothing", nothing)
	row("ten at once", ten, "with a driver that does nothing", tenNothing)
	return nil
}

// limited measures what disk_max costs, where it can be had.
func (b *bench) limited() error {
	settings, err := os.ReadFile(b.config)
	if err != nil {
		return err
	}
	limited := b.config + ".limited"
	if err := os.WriteFile(limited, append(settings, "disk_max: 4G\n"...), 0o600); err != nil {
		return err
	}
	writes := filepath.Join(b.state, ".writes")
	if err := os.WriteFile(writes, []byte("head -c 200M /dev/urandom > /root/file"), 0o600); err != nil {
		return err
	}
	if err := command(b.driver, "--config", limited, "try", b.image, "--", "true"); err != nil {
		fmt.Printf("disk_max is not measured: %v\n", err)
		return nil
	}
	var prepare, plainPrepare, cleanup, plainCleanup []time.Duration
	for range b.rounds {
		for _, c := range []struct {
			config           string
			prepare, cleanup *[]time.Duration
		}{{limited, &prepare, &cleanup}, {b.config, &plainPrepare, &plainCleanup}} {
			id := b.next()
			stage := func(args ...string) func() error {
				return func() error { return command(b.driver, append([]string{"--config", c.config}, args...)...) }
			}
			if err := errors.Join(
				timed(c.prepare, stage("prepare", "--id", id, b.image)),
				command(b.driver, "--config", c.config, "run", "--id", id, writes),
				timed(c.cleanup, stage("cleanup", "--id", id)),
			); err != nil {
				return err
			}
		}
	}
	row("prepare with disk_max", prepare, "without", plainPrepare)
	row("cleanup with disk_max, 200 MB in it", cleanup, "without", plainCleanup)
	fmt.Println()
	return nil
}

// breakdown prints where the time of each stage goes, in one job.
func (b *bench) breakdown() error {
	id := b.next()
	for _, stage := range [][]string{{"prepare", "--id", id, b.image}, {"run", "--id", id, "/dev/stdin"}, {"cleanup", "--id", id}} {
		out, err := exec.Command(b.driver, append([]string{"--config", b.config, "--debug"}, stage...)...).CombinedOutput()
		fmt.Printf("%s\n%s", stage[0], out)
		if err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func row(name string, ours []time.Duration, other string, theirs []time.Duration) {
	fmt.Printf("%-34s %6.0f ms   %-42s %6.0f ms  %.2f\n", name, milliseconds(ours), other, milliseconds(theirs), milliseconds(ours)/milliseconds(theirs))
}

// milliseconds is the median.
func milliseconds(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Millisecond)
}

func timed(all *[]time.Duration, do func() error) error {
	start := time.Now()
	err := do()
	*all = append(*all, time.Since(start))
	return err
}

var ids sync.Mutex

func (b *bench) next() string {
	ids.Lock()
	defer ids.Unlock()
	b.id++
	return strconv.FormatInt(b.id, 10)
}

func (b *bench) drive(args ...string) error {
	return command(b.driver, append([]string{"--config", b.config}, args...)...)
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

// plain is a machine started by hand.
type plain struct {
	name, dir string
	nspawn    *exec.Cmd
}

// startPlain boots the image's chroot with systemd-nspawn and nothing else, on
// an overlay that is mounted before the clock runs.
func (b *bench) startPlain(took *[]time.Duration) (*plain, error) {
	p := &plain{name: "plain-" + b.next(), dir: filepath.Join(b.state, ".plain")}
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(p.dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%[2]s/work", filepath.Join(b.state, b.image), p.dir)
	if err := syscall.Mount("plain", filepath.Join(p.dir, "root"), "overlay", 0, options); err != nil {
		return nil, err
	}
	return p, timed(took, func() error {
		p.nspawn = exec.Command("systemd-nspawn", "--quiet", "--machine="+p.name, "--directory="+filepath.Join(p.dir, "root"), "--boot")
		if err := p.nspawn.Start(); err != nil {
			return err
		}
		limit := time.Now().Add(time.Minute)
		for {
			out, err := exec.Command("systemctl", "--machine="+p.name, "is-system-running", "--wait").Output()
			if err == nil || string(out) == "degraded\n" {
				return nil
			}
			if time.Now().After(limit) {
				return fmt.Errorf("%s does not come up: %s", p.name, out)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

// stop terminates the machine and waits until it is gone.
func (p *plain) stop(took *[]time.Duration) error {
	err := timed(took, func() error {
		if err := command("machinectl", "terminate", p.name); err != nil {
			return err
		}
		p.nspawn.Wait() // it was killed: its error says only that
		return nil
	})
	return errors.Join(err, syscall.Unmount(filepath.Join(p.dir, "root"), 0), os.RemoveAll(p.dir))
}

// job plays one hello job; without a driver, with one that does nothing.
func (b *bench) job(ctx context.Context, driver string) error {
	id, err := strconv.ParseInt(b.next(), 10, 64)
	if err != nil {
		return err
	}
	stage := func(args ...string) gitlab.Command {
		if driver == "" {
			return gitlab.Command{Exec: "/bin/true"}
		}
		return gitlab.Command{Exec: driver, Args: append([]string{"--config", b.config}, args...)}
	}
	r := gitlab.Runner{
		Driver: gitlab.Driver{
			Config: stage("gitlab-config"), Prepare: stage("prepare"), Run: stage("run"), Cleanup: stage("cleanup"),
			BuildsDir: "/builds", CacheDir: "/cache",
		},
		Log: io.Discard,
	}
	result, err := r.Run(ctx, gitlab.Job{ID: id, Image: gitlab.Image{Name: b.image}, Script: []string{"echo hello"}})
	if err == nil && result.Status != gitlab.Success {
		err = fmt.Errorf("job %d: %s: %s", id, result.Message, result.Log)
	}
	return err
}

// many plays jobs at once.
func (b *bench) many(ctx context.Context, n int, driver string) error {
	var wait sync.WaitGroup
	errs := make([]error, n)
	for i := range errs {
		wait.Go(func() { errs[i] = b.job(ctx, driver) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
