package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// cached lists the files of all caches, by name.
func (h *host) cached(t *testing.T) []string {
	t.Helper()
	all := strings.Fields(shell(t, "find "+filepath.Join(h.state, ".cache")+" -mindepth 4 -type f -printf '%f\\n'"))
	slices.Sort(all)
	return all
}

// boundCaches configures bounds, and takes them and the caches away at the end.
func (h *host) boundCaches(t *testing.T, bounds string) {
	t.Helper()
	t.Cleanup(func() { h.configure(t, ""); os.RemoveAll(filepath.Join(h.state, ".cache")) })
	must(t, os.RemoveAll(filepath.Join(h.state, ".cache")))
	h.configure(t, bounds)
}

func TestAJobThatFillsItsCacheFindsWhatItUsedLast(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.boundCaches(t, "cache_max_project: 5M\n")
		fill := func(project int64, files string) {
			r := h.play(t, gitlab.Job{ID: newNumber(), Project: gitlab.Project{ID: project}, Script: []string{
				"for f in " + files + "; do mkdir -p /cache/$f; head -c 2M /dev/urandom > /cache/$f/$f; touch -d @$((n+=100)) /cache/$f/$f; done; sync"}})
			if r.Status != gitlab.Success {
				t.Fatal(r.Log)
			}
		}
		fill(7, "one two three")
		fill(8, "other")
		if got := h.cached(t); !slices.Equal(got, []string{"other", "three", "two"}) {
			t.Errorf("the caches hold %q", got)
		}
		// The setting that is added now holds for what is there already.
		h.configure(t, "cache_max: 3M\n")
		h.collects(t, "cache it was not used for")
		if got := h.cached(t); !slices.Equal(got, []string{"other"}) {
			t.Errorf("the caches hold %q", got)
		}
	})
}

func TestACacheStaysWhileAMachineHasIt(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.boundCaches(t, "cache_max: 0\n")
		over := make(chan gitlab.Result, 1)
		go func() {
			over <- h.play(t, gitlab.Job{ID: newNumber(), Script: []string{
				"head -c 2M /dev/urandom > /cache/mine; touch /cache/ready; until [ -e /cache/go ]; do sleep 0.1; done; cat /cache/mine | wc -c"}})
		}()
		await(t, "the job", func() bool {
			_, err := os.Stat(filepath.Join(h.state, ".cache"))
			return err == nil && slices.Contains(h.cached(t), "ready")
		})
		// Neither gc nor the end of another job touches it.
		if got := h.garbage(t); len(got) > 0 {
			t.Errorf("gc --dry-run lists %q", got)
		}
		h.drives(t, "gc")
		if r := h.play(t, gitlab.Job{ID: newNumber(), Project: gitlab.Project{ID: 8}, Script: []string{"echo > /cache/other"}}); r.Status != gitlab.Success {
			t.Error(r.Log)
		}
		got := h.cached(t)
		shell(t, "for cache in "+filepath.Join(h.state, ".cache")+"/*/*/*/; do touch ${cache}go; done")
		wantLog(t, (<-over).Log, "2097152")
		if !slices.Equal(got, []string{"mine", "ready"}) {
			t.Errorf("beside the job the caches hold %q", got)
		}
		shell(t, "find "+filepath.Join(h.state, ".cache")+" -name go -delete || true") // the job's cleanup may still be at it
		h.drives(t, "gc")
		if got := h.cached(t); len(got) > 0 {
			t.Errorf("after the job the caches hold %q", got)
		}
	})
}

// Big caches may lie on another disk, to which a link leads.
func TestACacheLiesWhereALinkLeads(t *testing.T) {
	h := onHost(t, "overlay")
	h.boundCaches(t, "cache_max: 0\n")
	there := shared(t)
	must(t, os.Symlink(there, filepath.Join(h.state, ".cache")))
	over := make(chan gitlab.Result, 1)
	go func() {
		over <- h.play(t, gitlab.Job{ID: newNumber(), Script: []string{"echo here > /cache/file; until [ -e /cache/go ]; do sleep 0.1; done; cat /cache/file"}})
	}()
	// What find complains about, since it goes away meanwhile, is there.
	file := func() string { return strings.TrimSpace(shell(t, "find "+there+" -type f -name file || true")) }
	await(t, "the job", func() bool { return file() != "" })
	h.drives(t, "gc") // which knows that the job has it
	if file() == "" {
		t.Error("a job's cache is gone")
	}
	shell(t, "touch $(dirname "+file()+")/go")
	wantLog(t, (<-over).Log, "\nhere\n")
	await(t, "the end of what is too much", func() bool { return file() == "" })
}

// A job gives its cache's files and directories names as long as they can be, and this
// program reads them as the host's root.
func TestAttacksByLongNamesInACacheAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	h.boundCaches(t, "")
	r := h.play(t, gitlab.Job{Script: []string{`python3 -c '
import os
os.chdir("/cache")
for n in range(126): os.mkdir("d" * 255); os.chdir("d" * 255)
for n in range(15000): os.mknod(f"{n:0255}")'`}})
	if r.Status != gitlab.Success {
		t.Fatal(r.Log)
	}
	cache := filepath.Join(h.state, ".cache")
	await(t, "the size of the cache", func() bool {
		return strings.TrimSpace(shell(t, "cat "+cache+"/*/*/*.used")) != ""
	})
	shell(t, "rm "+cache+"/*/*/*.used") // or nobody would look again
	h.configure(t, "cache_max_project: 50M\n")
	name := "take the host's memory by names in a cache"
	out, err := exec.Command("prlimit", "--data=200000000", h.driver, "--config", h.config, "gc").CombinedOutput()
	if err != nil {
		gotThrough(t, name, err, string(out[:min(len(out), 1000)]))
	}
	if left := strings.Count(shell(t, "find "+cache+" -type f"), "\n"); left == 0 || left > 13000 {
		t.Errorf("%d files are left: %s", left, out)
	}
	held(name)
}

func TestACacheOfManyFilesDoesNotKeepCleanupWaiting(t *testing.T) {
	h := onHost(t, "overlay")
	h.boundCaches(t, "cache_max_project: 1M\n")
	start := time.Now()
	r := h.play(t, gitlab.Job{Script: []string{"cd /cache; seq -w 60000 | xargs touch"}})
	if r.Status != gitlab.Success {
		t.Fatal(r.Log)
	}
	// Its service goes on, and is gone at its end.
	await(t, "the unit that prunes", func() bool {
		return strings.TrimSpace(shell(t, "systemctl list-units --all --plain --no-legend 'nspawn-runner_caches*.service'")) == ""
	})
	if !strings.Contains(shell(t, fmt.Sprintf("journalctl --sync; journalctl --since=@%d --unit 'nspawn-runner_caches*.service'", start.Unix())), "Keep the caches of CI jobs within bounds") {
		t.Error("there was no unit")
	}
	if got := len(h.cached(t)); got > 256 {
		t.Errorf("%d files are left", got)
	}
}
