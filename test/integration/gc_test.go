package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// garbage is what gc --dry-run lists: WHAT WHY a line.
func (h *host) garbage(t *testing.T) []string {
	t.Helper()
	var rows []struct{ What, Path, Why string }
	must(t, json.Unmarshal([]byte(h.drives(t, "gc", "--dry-run", "--json").stdout), &rows))
	lines := []string{}
	for _, r := range rows {
		lines = append(lines, r.What+" "+r.Why)
	}
	return lines
}

// collects runs gc, which must list what is wanted, and then nothing.
func (h *host) collects(t *testing.T, want string) {
	t.Helper()
	if got := h.garbage(t); !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, want) }) {
		t.Errorf("gc --dry-run lists %q, want %s", got, want)
	}
	what, why, _ := strings.Cut(want, " ")
	wantLog(t, h.drives(t, "gc").stdout, "removed  "+what+"  ", why)
	if got := h.garbage(t); len(got) > 0 {
		t.Errorf("after gc: %q", got)
	}
}

func TestGarbageCollectionTouchesNothingOfLivingJobsAndBuilds(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		h.addImage(t, "built", "")
		h.book(t, "built", "", wrote("one", "/etc/one"))
		var over atomic.Bool
		var collector, work sync.WaitGroup
		rounds := 0
		collector.Go(func() {
			for ; !over.Load(); rounds++ {
				if c := h.drive(t, "gc"); c.status != 0 || strings.Contains(c.stdout, " machine ") || strings.Contains(c.stdout, " build ") {
					t.Errorf("gc: %+v", c)
				}
			}
		})
		work.Go(func() { wantLog(t, h.drive(t, "chroot-maintenance", "built").stderr, "built: published, generation") })
		for range 5 {
			work.Go(func() {
				for range 6 {
					r := h.play(t, gitlab.Job{ID: newNumber(), Script: []string{"systemctl is-system-running", "echo works > /root/file; cat /root/file"}})
					if r.Status != gitlab.Success {
						t.Errorf("%s: %s", r.Status, r.Log)
					}
				}
			})
		}
		work.Wait()
		over.Store(true)
		collector.Wait()
		t.Logf("gc ran %d times beside 30 jobs and a maintenance", rounds)
	})
}

func TestGarbageCollectionRemovesMachinesOfADeadGitlabRunnerAndOfAnEarlierBoot(t *testing.T) {
	needLab(t)
	onEach(t, func(t *testing.T, h *host) {
		_, kill := h.preparedByRunner(t)
		if got := h.garbage(t); len(got) > 0 {
			t.Errorf("as long as it lives: %q", got)
		}
		kill()
		h.collects(t, "machine its gitlab-runner (process ")

		id := h.prepared(t, "bookworm")
		record := filepath.Join(h.state, ".machines", id, "record.json")
		text, err := os.ReadFile(record)
		must(t, err)
		must(t, os.WriteFile(record, []byte(strings.Replace(string(text), `"boot": "`, `"boot": "another`, 1)), 0o600))
		h.collects(t, "machine the host has been rebooted since")
	})
}

func TestGarbageCollectionRemovesWhatAKilledBuildLeft(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		h.addImage(t, "slow", "")
		h.book(t, "slow", "", wrote("one", "/etc/one"), raw("touch /begun; sleep 600"))
		trees := func() string { return shell(t, "ls -d "+filepath.Join(h.state, ".generations", "slow")+"/*/") }
		before := trees()
		cmd := exec.Command(h.driver, "--config", h.config, "chroot-maintenance", "slow")
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test ends before
		await(t, "the playbook to run", func() bool {
			begun, _ := filepath.Glob(filepath.Join(h.state, ".generations", "slow", "*", "begun"))
			return len(begun) > 0
		})
		if got := h.garbage(t); len(got) > 0 {
			t.Errorf("as long as it builds: %q", got)
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		await(t, "the build's programs to end", func() bool { return shell(t, "pgrep -f '[s]leep 600' || true") == "" })
		h.collects(t, "build a build of image slow was killed")
		if after := trees(); after != before {
			t.Errorf("before %s, after %s", before, after)
		}
	})
}

func TestGarbageCollectionFindsWhatLiesOutsideOfTheStateDirectory(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	must(t, os.RemoveAll(filepath.Join(h.state, ".machines", id)))
	h.collects(t, "unit the directory of its machine is gone")

	living := h.prepared(t, "bookworm")
	old := filepath.Join("/run/systemd/nspawn/propagate", "run-"+newID())
	young := filepath.Join("/run/systemd/nspawn/propagate", "run-"+newID())
	must(t, os.MkdirAll(old, 0o700), os.MkdirAll(young, 0o700))
	t.Cleanup(func() { os.Remove(young) })
	then := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(old, then, then))
	must(t, os.Chtimes(filepath.Join("/run/systemd/nspawn/propagate", "run-"+living), then, then))
	h.collects(t, "directory systemd-nspawn was killed")
	if _, err := os.Stat(young); err != nil {
		t.Errorf("a machine may be starting there: %v", err)
	}
	if c := h.run(t, living, "echo alive"); c.stdout != "alive\n" {
		t.Errorf("%+v", c)
	}
	must(t, os.MkdirAll(filepath.Join(h.state, ".trash", "rest"), 0o700))
	h.collects(t, "trash its deletion did not come to an end")
}

func TestAHostWithoutRoomRefusesJobsAtOnce(t *testing.T) {
	h := onHost(t, "overlay")
	for setting, want := range map[string]string{
		"min_free_disk: 100%\n":                     " MiB are free in " + h.state + "; jobs need at least ",
		"min_free_disk: 0\nmin_free_memory: 100%\n": " MiB of memory are available; jobs need at least ",
	} {
		h.configure(t, setting)
		r := h.play(t, gitlab.Job{Script: []string{"true"}})
		h.configure(t, "")
		if r.Reason != gitlab.SystemFailure {
			t.Errorf("%s: %s", setting, r.Reason)
		}
		wantLog(t, r.Log, want)
	}
	h.configure(t, fmt.Sprintf("min_free_disk: %d\n", 1<<20))
	defer h.configure(t, "")
	h.prepared(t, "bookworm")
}

// What no test may leave behind is seen while it is there.
func TestTheSearchForLeftoversFindsAllThatAMachineHas(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		kinds := []string{"unit", "file", "process"} // its mounts are in a namespace of their own
		switch h.backend {
		case "overlay":
			h.configure(t, "disk_max: 200M\n")
			defer h.configure(t, "")
			kinds = append(kinds, "loop device")
		case "btrfs":
			kinds = append(kinds, "subvolume")
		}
		h.prepared(t, "bookworm")
		found := h.leftovers(t)
		for _, kind := range kinds {
			if !slices.ContainsFunc(found, func(line string) bool {
				return strings.HasPrefix(line, kind+": ") && !slices.Contains(h.before, line)
			}) {
				t.Errorf("no %s in:\n%s", kind, strings.Join(found, "\n"))
			}
		}
	})
}
