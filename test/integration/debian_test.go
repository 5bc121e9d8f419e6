package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/debian"
)

// What DEBIAN.md says of machines. One machine runs all cases of a group: its boot takes
// longer than most of them.
func TestWhatRunsOnDebianRunsInAMachine(t *testing.T) {
	if os.Getenv("NSPAWN_RUNNER_DEBIAN") == "" {
		t.Skip("needs images that hold many programs: run 'go tool mage test:debian'")
	}
	for _, group := range debian.Groups {
		for _, image := range group.Images {
			for _, backend := range group.Backends {
				t.Run(strings.Join([]string{group.Name, image, backend}, "/"), func(t *testing.T) {
					t.Parallel()
					runGroup(t, group, image, backend)
				})
			}
		}
	}
}

func runGroup(t *testing.T, group debian.Group, image, backend string) {
	h := debianHost(t, image, backend)
	m := debianMachine{h, h.prepared(t, image), image, backend}
	m.must(t, group.Setup)
	for _, c := range group.Cases {
		if c.In(image) {
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
	start := time.Now()
	m.must(t, c.Script)
	word := "works"
	if c.Refused != "" {
		word = "refused"
	}
	fmt.Printf("%-8s %-8s %-8s %5.1f s  %s\n", word, m.image, m.backend, time.Since(start).Seconds(), c.Name)
}

// must runs a script. When it fails its last lines tell why.
func (m debianMachine) must(t *testing.T, text string) {
	t.Helper()
	c := m.h.run(t, m.id, debian.Prelude+text)
	if c.status == 0 {
		return
	}
	lines := strings.Split(strings.TrimSpace(c.stdout+c.stderr), "\n")
	t.Fatalf("image %s, backend %s: exit %s; its last lines:\n%s", m.image, m.backend, c.code, strings.Join(lines[max(0, len(lines)-20):], "\n"))
}
