package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// both are the services of the measured jobs, as gitlab-runner names them to a driver.
const both = `CUSTOM_ENV_CI_JOB_SERVICES=[{"name":"postgres","variables":{"POSTGRES_PASSWORD":"secret"}},{"name":"redis"}]`

// services measures how long it takes until a job can use PostgreSQL and Redis, by turns with
// a pod of podman's that has the same trees, and with another build of the driver, if there
// is one. In all of them the data directory of PostgreSQL is there already.
func (b *bench) services() (err error) {
	if err := b.drive("chroot-maintenance", "--jobs", "2"); err != nil { // builds postgres and redis
		return err
	}
	pods, noPods := b.newPods()
	if noPods == nil {
		defer func() { err = errors.Join(err, pods.remove()) }()
		noPods = errors.Join(pods.start(), pods.stop()) // the first one may find something missing
	}
	prepare := func(driver, id string, env ...string) func() error {
		return func() error {
			cmd := exec.Command(driver, "--config", b.config, "prepare", "--id", id, b.image)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.CombinedOutput()
			if err == nil && strings.Contains(string(out), "warning") {
				err = errors.New("a warning")
			}
			if err != nil {
				return fmt.Errorf("prepare: %w: %s", err, out)
			}
			return nil
		}
	}
	var without, with, other, pod times
	for range b.rounds {
		err := errors.Join(b.measure(b.driver, &without, prepare), b.measure(b.driver, &with, prepare, both))
		if b.other != "" {
			err = errors.Join(err, b.measure(b.other, &other, prepare, both))
		}
		if noPods == nil {
			err = errors.Join(err, timed(&pod.prepare, pods.start), timed(&pod.cleanup, pods.stop))
		}
		if err != nil {
			return errors.Join(err, noPods)
		}
	}
	fmt.Printf("%-34s %9s   %-42s %9s  %s\n", "nspawn-runner", "median", "beside", "median", "ratio")
	if noPods == nil {
		row("prepare with postgres and redis", with.prepare, "podman: a pod of three, until both answer", pod.prepare)
		row("cleanup of them", with.cleanup, "podman pod rm --force", pod.cleanup)
	}
	row("prepare with postgres and redis", with.prepare, "prepare without services", without.prepare)
	row("run of an empty script beside them", with.run, "without services", without.run)
	if b.other != "" {
		row("prepare with postgres and redis", with.prepare, "the other build of the driver", other.prepare)
	}
	return noPods
}

// times are those of a job's stages.
type times struct{ prepare, run, cleanup []time.Duration }

// measure measures a job.
func (b *bench) measure(driver string, took *times, prepare func(driver, id string, env ...string) func() error, env ...string) error {
	id := b.next()
	empty := func() error { return b.drive("run", "--id", id, "/dev/stdin", "bench") }
	return errors.Join(
		timed(&took.prepare, prepare(driver, id, env...)),
		empty(), // it pays for the machine
		timed(&took.run, empty), timed(&took.run, empty),
		timed(&took.cleanup, func() error { return b.drive("cleanup", "--id", id) }))
}

// pods are podman's: one at a time, with the image of jobs, PostgreSQL and Redis.
type pods struct {
	dir     string
	storage []string // where podman keeps what it has
}

// newPods makes podman's images of the trees of ours.
func (b *bench) newPods() (*pods, error) {
	dir := filepath.Join(b.state, ".podman")
	// crun raises a limit that a lab cannot raise (setrlimit of RLIMIT_MEMLOCK, seen).
	p := &pods{dir: dir, storage: []string{"--runtime", "runc", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}}
	for _, image := range []string{b.image, "postgres", "redis"} {
		tree, err := filepath.EvalSymlinks(filepath.Join(b.state, image))
		if err != nil {
			return nil, err
		}
		tar := exec.Command("tar", "--directory", tree, "--create", ".")
		tar.Stderr = os.Stderr
		out, err := tar.StdoutPipe()
		if err != nil {
			return nil, err
		}
		load := exec.Command("podman", append(p.storage, "import", "--quiet", "-", "localhost/"+image)...)
		load.Stdin = out
		if err := tar.Start(); err != nil {
			return nil, err
		}
		said, err := load.CombinedOutput()
		if err := errors.Join(err, tar.Wait()); err != nil {
			return nil, fmt.Errorf("podman import of %s: %w: %s", image, err, said)
		}
	}
	return p, nil
}

func (p *pods) podman(args ...string) error { return command("podman", append(p.storage, args...)...) }

// start starts a pod, and returns when both servers answer. Its network has nothing but a
// loopback, which is less than what a job of ours has.
func (p *pods) start() error {
	if err := p.podman("pod", "create", "--name", "pod", "--network", "none"); err != nil {
		return err
	}
	pidFile := filepath.Join(p.dir, "pid")
	postgres := "mkdir -p /run/postgresql && chown postgres /run/postgresql && " +
		"exec runuser -u postgres -- /usr/lib/postgresql/*/bin/postgres -D /var/lib/postgresql/data -c listen_addresses=127.0.0.1"
	for _, run := range [][]string{
		{"localhost/bookworm", "sleep", "infinity"},
		{"localhost/postgres", "bash", "-c", postgres},
		{"localhost/redis", "redis-server", "--save", ""},
	} {
		if err := p.podman(append([]string{"run", "--detach", "--quiet", "--pod", "pod", "--pidfile", pidFile}, run...)...); err != nil {
			return err
		}
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	answered := make(chan error)
	go func() {
		runtime.LockOSThread() // this thread gets another network, and so ends with its goroutine
		err := enter("/proc/" + strings.TrimSpace(string(pid)) + "/ns/net")
		if err == nil {
			err = errors.Join(answers("127.0.0.1:5432", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "SN"), answers("127.0.0.1:6379", "PING\r\n", "+-"))
		}
		answered <- err
	}()
	return <-answered
}

// enter puts this thread into a network.
func enter(path string) error {
	namespace, err := os.Open(path)
	if err != nil {
		return err
	}
	defer namespace.Close()
	return unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
}

// answers waits until a server answers a question with one of some characters.
func answers(address, question, want string) error {
	limit := time.Now().Add(time.Minute)
	for {
		err := ask(address, question, want)
		if err == nil || time.Now().After(limit) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func ask(address, question, want string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(question)); err != nil {
		return err
	}
	got := make([]byte, 1)
	if _, err := conn.Read(got); err != nil || !strings.Contains(want, string(got)) {
		return fmt.Errorf("%s says %q, %v", address, got, err)
	}
	return nil
}

func (p *pods) stop() error { return p.podman("pod", "rm", "--force", "--time", "0", "pod") }

// remove removes all that podman has.
func (p *pods) remove() error { return p.podman("rmi", "--all", "--force") }
