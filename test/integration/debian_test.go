package integration

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/debian"
)

// pace is how many machines run cases at a time, as some cases wait for a network, and how long a case may
// take: one that waits for what never comes is told from one that is slow. An emulated processor is ten
// times as slow.
func pace() (machines int, limit time.Duration) {
	if os.Getenv("NSPAWN_RUNNER_HOST") == "vm" {
		return 1, 20 * time.Minute
	}
	return 3, 4 * time.Minute
}

// What docs/debian.md says of machines. One machine runs all cases of a group: its boot takes
// longer than most of them.
func TestWhatRunsOnDebianRunsInAMachine(t *testing.T) {
	if os.Getenv("NSPAWN_RUNNER_DEBIAN") == "" {
		t.Skip("needs images that hold many programs: run 'go tool mage test:debian'")
	}
	var all sync.WaitGroup
	machines, _ := pace()
	room := make(chan struct{}, machines)
	groups := slices.Clone(debian.Groups)
	slices.SortStableFunc(groups, func(a, b debian.Group) int { return int(b.Takes - a.Takes) })
	for _, group := range groups {
		for _, image := range group.Images {
			for _, backend := range group.Backends {
				room <- struct{}{}
				all.Go(func() {
					defer func() { <-room }()
					t.Run(strings.Join([]string{group.Name, image, backend}, "/"), func(t *testing.T) { runGroup(t, group, image, backend) })
				})
			}
		}
	}
	all.Wait()
	for _, h := range installed {
		h.checkNothingLeft(t)
	}
}

func runGroup(t *testing.T, group debian.Group, image, backend string) {
	h := debianHost(t, image, backend)
	m := debianMachine{h, h.prepared(t, image), image, backend}
	must(t, m.run(t, group.Setup))
	for _, c := range group.Cases {
		if c.In(image, backend) {
			t.Run(c.Name, func(t *testing.T) { m.shows(t, c) })
		}
	}
}

// debianHost is the host with a backend, and with an image for the cases.
func debianHost(t *testing.T, image, backend string) *host {
	t.Helper()
	installMu.Lock()
	defer installMu.Unlock()
	h := place(t, backend)
	generation := filepath.Join(".generations", image, "20260101T000000Z")
	path := filepath.Join(h.state, generation)
	if _, err := os.Stat(path); err == nil {
		return h
	}
	tree := filepath.Join(os.Getenv("NSPAWN_RUNNER_DEBIAN"), image)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	if backend == "btrfs" {
		shell(t, "btrfs -q subvolume create "+path+" && cp -a "+tree+"/. "+path)
	} else { // no copy
		shell(t, "mkdir "+path+" && mount --bind "+tree+" "+path)
	}
	must(t, os.Symlink(generation, filepath.Join(h.state, image)))
	return h
}

// debianMachine is a machine that runs cases.
type debianMachine struct {
	h                  *host
	id, image, backend string
}

// shows runs a case and prints its line.
func (m debianMachine) shows(t *testing.T, c debian.Case) {
	t.Helper()
	release := strings.TrimSpace(shell(t, "uname -r"))
	if c.Kernel != "" && exec.Command("dpkg", "--compare-versions", release, "lt", c.Kernel).Run() == nil {
		t.Skipf("needs Linux %s, this is %s", c.Kernel, release)
	}
	word := "works"
	if c.Refused != "" {
		word = "refused"
	}
	start := time.Now()
	err := m.run(t, c.Script)
	if err != nil {
		word = "fails"
	}
	fmt.Printf("%-8s %-8s %-8s %5.1f s  %s\n", word, m.image, m.backend, time.Since(start).Seconds(), c.Name)
	if err != nil {
		t.Errorf("%s, in a machine of %s on %s: %v", c.Name, m.image, m.backend, err)
	}
}

// run runs a script. When it fails its last lines tell why.
func (m debianMachine) run(t *testing.T, text string) error {
	t.Helper()
	_, limit := pace()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.h.driver, "--config", m.h.config, "run", "--id", m.id, script(t, debian.Prelude+text), "build_script")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	output, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return fmt.Errorf("%w; its last lines:\n%s", cmp.Or(context.Cause(ctx), err), strings.Join(lines[max(0, len(lines)-20):], "\n"))
}
