package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The driver that is built for tests dies at a mark of its, as if by kill -9, when
// it is told to. Here each stage does, at each of its marks; then one of several
// comes to the rescue, and nothing may be left.

// faults is the driver that has marks.
func faults() string { return os.Getenv("NSPAWN_RUNNER_FAULTS") }

// killAt is the environment in which the driver, or its helper, dies at a mark.
func killAt(mark string) string { return "NSPAWN_RUNNER_KILL_AT=" + mark }

// tellMarks is the environment in which it says which marks it passes.
const tellMarks = "NSPAWN_RUNNER_MARKS=mark"

// marksIn are the marks that were passed, each once.
func marksIn(t *testing.T, output string) (marks []string) {
	t.Helper()
	for line := range strings.Lines(output) {
		if mark, is := strings.CutPrefix(strings.TrimSpace(line), "mark: "); is && !slices.Contains(marks, mark) {
			marks = append(marks, mark)
		}
	}
	if len(marks) < 3 {
		t.Fatalf("too few marks %q in: %s", marks, output)
	}
	return marks
}

// killing is a stage that is killed.
type killing struct {
	image string
	// before is what the same job did before: calls of the driver.
	before [][]string
	stage  []string
	fails  bool // the stage does, when it is not killed
	// rescues are what comes after its kills, each in turn.
	rescues []rescue
	// at says at which of its marks it is killed, nil is all.
	at func(mark string) bool
}

// begin is a job up to the stage.
func (k killing) begin(t *testing.T, h *host) *caller {
	t.Helper()
	c := h.caller(t, k.image)
	for _, args := range k.before {
		if status, output := c.call(t, faults(), nil, args...); status != 0 {
			t.Fatalf("%q: exit %d: %s", args, status, output)
		}
	}
	return c
}

// marks are those that the stage passes when nobody kills it.
func (k killing) marks(t *testing.T, h *host) []string {
	t.Helper()
	c := k.begin(t, h)
	status, output := c.call(t, faults(), []string{tellMarks}, k.stage...)
	if status != 0 != k.fails {
		t.Fatalf("%q: exit %d: %s", k.stage, status, output)
	}
	marks := marksIn(t, output)
	c.cleanup(t)
	h.checkNothingLeft(t)
	return marks
}

// cleanup is gitlab-runner's call of the driver's last stage.
func (c *caller) cleanup(t *testing.T) {
	t.Helper()
	if status, output := c.call(t, c.h.driver, nil, "cleanup"); status != 0 || output != "" {
		t.Errorf("cleanup: exit %d: %s", status, output)
	}
}

// rescue is what happens after a kill.
type rescue struct {
	name string
	do   func(*testing.T, *caller)
}

var (
	byCleanup = rescue{"cleanup", func(t *testing.T, c *caller) {
		c.cleanup(t)
		c.h.collectNameless(t)
	}}
	byGC = rescue{"gc", func(t *testing.T, c *caller) {
		c.h.collect(t)
		// Of a machine that its gitlab-runner may still want all is there.
		if exists(filepath.Join(c.h.state, ".machines", c.id)) {
			if status, output := c.call(t, c.h.driver, nil, "run", script(t, "pgrep -f '[s]leep 1001'; echo whole"), "build_script"); status != 0 || output != "whole\n" {
				t.Errorf("half of a machine is left, or of a script: exit %d: %s", status, output)
			}
			c.cleanup(t)
		}
	}}
	byGCAfterTheEnd  = rescue{"gc after the end of gitlab-runner", func(t *testing.T, c *caller) { c.die(); c.h.collect(t) }}
	byTheNextPrepare = rescue{"the next prepare after the end of gitlab-runner", func(t *testing.T, c *caller) {
		c.die()
		c.h.age(t)
		next := c.h.caller(t, "bookworm")
		if status, output := next.call(t, c.h.driver, nil, "prepare"); status != 0 {
			t.Errorf("the next prepare: exit %d: %s", status, output)
		}
		next.cleanup(t)
	}}
)

// collect is gc, which may find that it has nothing to do, in the future.
func (h *host) collect(t *testing.T) {
	t.Helper()
	h.age(t)
	h.drives(t, "gc")
}

// nameless are the directories that were made for a machine, and have no name yet.
func (h *host) nameless(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(h.state, ".machines", ".new-*"))
	must(t, err)
	return paths
}

// collectNameless is gc if there is one of these. It is empty, and says not whose it is: so the
// cleanup of a job whose prepare was killed cannot remove it. No job may be about to begin.
func (h *host) collectNameless(t *testing.T) {
	t.Helper()
	if len(h.nameless(t)) > 0 {
		h.age(t)
		shell(t, h.driver+" --config "+h.config+" gc") // t.Context may be over
	}
}

// age makes what has no name yet old: gc gives its maker a minute, by a time in its name.
func (h *host) age(t *testing.T) {
	t.Helper()
	for _, path := range h.nameless(t) {
		must(t, os.Rename(path, filepath.Join(filepath.Dir(path), ".new-0-"+filepath.Base(path))))
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// eachKill kills the stage at each of its marks, once for each rescue.
func (k killing) eachKill(t *testing.T, h *host) {
	start := time.Now()
	marks := k.marks(t, h)
	if k.at != nil {
		marks = slices.DeleteFunc(marks, func(mark string) bool { return !k.at(mark) })
	}
	if len(marks) == 0 {
		t.Fatal("there is no such mark")
	}
	for _, mark := range marks {
		for _, rescue := range k.rescues {
			c := k.begin(t, h)
			if status, output := c.call(t, faults(), []string{killAt(mark)}, k.stage...); status != 137 || !strings.Contains(output, "killed at: "+mark+"\n") {
				t.Errorf("%s: not killed: exit %d: %s", mark, status, output)
			}
			rescue.do(t, c)
			if h.checkNothingLeft(t); t.Failed() {
				t.Fatalf("killed at %q, then %s", mark, rescue.name)
			}
		}
	}
	t.Logf("%d kills in %v, at %q", len(marks)*len(k.rescues), time.Since(start).Round(time.Second), marks)
}

func TestAKillAtAnyMarkOfAStageIsMendedByWhatComesNext(t *testing.T) {
	prepared, scripts := [][]string{{"prepare"}}, []string{"run", script(t, "sleep 1001 & echo works"), "build_script"}
	prepare := killing{image: "bookworm", stage: []string{"prepare"}, rescues: []rescue{byCleanup, byGC, byTheNextPrepare}}
	cleanup := killing{image: "bookworm", before: prepared, stage: []string{"cleanup"}, rescues: []rescue{byCleanup, byGC, byGCAfterTheEnd}}
	t.Run("prepare", func(t *testing.T) { prepare.eachKill(t, onHost(t, "overlay")) })
	t.Run("cleanup", func(t *testing.T) { cleanup.eachKill(t, onHost(t, "overlay")) })
	t.Run("run", func(t *testing.T) {
		killing{image: "bookworm", before: prepared, stage: scripts, rescues: []rescue{byCleanup, byGC}}.eachKill(t, onHost(t, "overlay"))
	})
	// A stop within prepare: of an earlier machine, and of one that does not come up.
	ofStop := cleanup.marks(t, onHost(t, "overlay"))
	stops := func(mark string) bool { return slices.Contains(ofStop, mark) }
	t.Run("a second prepare", func(t *testing.T) {
		killing{image: "bookworm", before: prepared, stage: []string{"prepare"}, rescues: []rescue{byCleanup, byGCAfterTheEnd}, at: stops}.eachKill(t, onHost(t, "overlay"))
	})
	t.Run("a prepare that fails", func(t *testing.T) {
		h := onHost(t, "overlay")
		h.addImage(t, "crashes", "rm usr/lib/systemd/systemd; printf '#!/bin/sh\\nexit 1\\n' > usr/lib/systemd/systemd; chmod 755 usr/lib/systemd/systemd")
		killing{image: "crashes", stage: []string{"prepare"}, fails: true, rescues: []rescue{byCleanup, byGCAfterTheEnd}, at: stops}.eachKill(t, h)
	})
	t.Run("a layer of its own", func(t *testing.T) {
		h := onHost(t, "overlay")
		h.configure(t, "disk_max: 200M\n")
		defer h.configure(t, "")
		for _, k := range []killing{prepare, cleanup} {
			k.at = func(mark string) bool {
				return strings.HasPrefix(mark, "storage: layer") || mark == "machine: root prepared" || mark == "machine: its stop noted"
			}
			k.eachKill(t, h)
		}
	})
	// What differs is what prepare makes and cleanup takes away.
	for _, backend := range []string{"btrfs", "tmpfs"} {
		t.Run(backend, func(t *testing.T) {
			for _, k := range []killing{prepare, cleanup} {
				k.rescues = []rescue{byGCAfterTheEnd}
				k.at = func(mark string) bool {
					return slices.Contains([]string{"machine: root prepared", "machine: its bus answers", "machine: service stopped", "machine: moved to the trash"}, mark)
				}
				k.eachKill(t, onHost(t, backend))
			}
		})
	}
}

func TestAGitlabRunnerThatDiesWhileItsDriverIsAtWorkLeavesNothingThatGCDoesNotFind(t *testing.T) {
	h := onHost(t, "overlay")
	for _, test := range []struct {
		before [][]string
		stage  []string
		mark   string
	}{
		{nil, []string{"prepare"}, "prepare: caller known"},
		{nil, []string{"prepare"}, "machine: control group of its network made"},
		{[][]string{{"prepare"}}, []string{"run", script(t, "sleep 2"), "build_script"}, "systemd: start of a script asked for"},
		{[][]string{{"prepare"}}, []string{"cleanup"}, "machine: its stop noted"},
	} {
		c := killing{image: "bookworm", before: test.before}.begin(t, h)
		c.begin(t, faults(), []string{tellMarks}, test.stage...)
		await(t, "the driver to be at "+test.mark, func() bool { return strings.Contains(c.printed(t), "mark: "+test.mark+"\n") })
		c.die()
		// The driver lives on, and ends in its own time.
		await(t, "the driver's end", func() bool { return shell(t, "pgrep -f '^"+faults()+"' || true") == "" })
		h.collect(t)
		if h.checkNothingLeft(t); t.Failed() {
			t.Fatalf("gitlab-runner died when %q was at %q", test.stage, test.mark)
		}
	}
}

// tellHelper gives the helper of all machines a variable: a line NAME=VALUE. A
// drop-in of its unit is how an administrator would.
func tellHelper(t *testing.T, line string) {
	t.Helper()
	const dropIns, file = "/run/systemd/system/nspawn-runner-.service.d", "/run/nspawn-runner.faults"
	must(t, os.WriteFile(file, []byte(line+"\n"), 0o600))
	if exists(dropIns) {
		return
	}
	must(t, os.MkdirAll(dropIns, 0o755))
	must(t, os.WriteFile(filepath.Join(dropIns, "faults.conf"), []byte("[Service]\nEnvironmentFile=-"+file+"\n"), 0o644))
	shell(t, "systemctl daemon-reload")
	t.Cleanup(func() { shell(t, "rm -r "+dropIns+" "+file+" && systemctl daemon-reload") })
}

func TestAKillAtAnyMarkOfTheMachinesHelperFailsPrepareAndLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		tellHelper(t, tellMarks)
		c := h.caller(t, "bookworm")
		if status, output := c.call(t, faults(), nil, "prepare"); status != 0 {
			t.Fatalf("prepare: exit %d: %s", status, output)
		}
		c.cleanup(t)
		marks := marksIn(t, shell(t, "journalctl --sync && journalctl --output=cat --unit=nspawn-runner-"+c.id+".service"))
		t.Logf("%q", marks)
		for _, mark := range marks {
			tellHelper(t, killAt(mark))
			c := h.caller(t, "bookworm")
			status, output := c.call(t, faults(), nil, "prepare")
			if status != 2 || !strings.Contains(output, "it ended while it started") || !strings.Contains(output, "killed at: "+mark) {
				t.Errorf("%s: exit %d: %s", mark, status, output)
			}
			h.checkNothingLeft(t)
			if h.backend != "overlay" {
				continue
			}
			// And the driver with it.
			for _, rescue := range []rescue{byCleanup, byGC} {
				c := h.caller(t, "bookworm")
				if status, output := c.call(t, faults(), []string{killAt("systemd: start of a unit asked for")}, "prepare"); status != 137 {
					t.Errorf("not killed: exit %d: %s", status, output)
				}
				await(t, "the helper's end", func() bool {
					return strings.TrimSpace(shell(t, "systemctl show --property=ActiveState --value nspawn-runner-"+c.id+".service")) == "failed"
				})
				rescue.do(t, c)
				if h.checkNothingLeft(t); t.Failed() {
					t.Fatalf("killed at %q, then %s", mark, rescue.name)
				}
			}
		}
	})
}

func TestAMachineThatIsKilledWhileItStartsLeavesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	// prepare tells which mark it is at, and systemd-nspawn dies.
	prepare := func(fatal string) (output string, status int) {
		id := newID()
		cmd := exec.Command(faults(), "--config", h.config, "prepare", "--id", id, "bookworm")
		cmd.Env = append(os.Environ(), tellMarks, "SYSTEM_FAILURE_EXIT_CODE=2")
		stderr, err := cmd.StderrPipe()
		must(t, err, cmd.Start())
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			output += lines.Text() + "\n"
			if lines.Text() == "mark: "+fatal {
				_ = exec.Command("systemctl", "kill", "--signal=KILL", "nspawn-runner-"+id+".service").Run()
			}
		}
		_ = cmd.Wait()
		if status = cmd.ProcessState.ExitCode(); status == 0 { // it was up by then, or died a moment later
			h.drives(t, "cleanup", "--id", id)
		}
		return output, status
	}
	output, _ := prepare("")
	marks := marksIn(t, output)
	failed := 0
	for _, mark := range marks[slices.Index(marks, "systemd: start of a unit asked for"):] {
		output, status := prepare(mark)
		if status == 2 {
			failed++
			if !strings.Contains(output, "machine run-") {
				t.Errorf("killed at %q: %s", mark, output)
			}
		} else if status != 0 {
			t.Errorf("killed at %q: exit %d: %s", mark, status, output)
		}
		if h.checkNothingLeft(t); t.Failed() {
			t.Fatalf("killed at %q", mark)
		}
	}
	if failed < 3 {
		t.Errorf("only %d of prepare's %q failed", failed, marks)
	}
}

// hostileTrash makes trees in the trash that do not go away at once.
func (h *host) hostileTrash(t *testing.T) {
	t.Helper()
	trash := filepath.Join(h.state, ".trash")
	shell(t, "mkdir -p "+trash+"/plain/a "+trash+"/hard/b && cd "+trash+`/hard && touch b/c && chattr +i b/c
for i in {1..5}; do deep=$(printf 'deep/%.0s' {1..100}); mkdir -p $deep && cd $deep; done`)
	if h.backend == "btrfs" {
		shell(t, "cd "+trash+"/hard && btrfs -q subvolume create outer && btrfs -q subvolume create outer/inner && btrfs property set outer/inner ro true")
	}
}

func TestAKilledDeletionIsFinishedByGCAndByTheNextPrepare(t *testing.T) {
	onDisks(t, func(t *testing.T, h *host) {
		trash := filepath.Join(h.state, ".trash")
		empty := func(env string) (string, error) {
			h.hostileTrash(t)
			cmd := exec.Command(faults(), "empty-trash", trash)
			cmd.Env = append(os.Environ(), env)
			output, err := cmd.CombinedOutput()
			return string(output), err
		}
		output, err := empty(tellMarks)
		must(t, err)
		marks := marksIn(t, output)
		t.Logf("%q", marks)
		for _, mark := range marks {
			for name, rescue := range map[string]func(){
				"gc":             func() { h.collect(t) },
				"prepare":        func() { h.prepared(t, "bookworm") },
				"its repetition": func() { shell(t, faults()+" empty-trash "+trash) },
			} {
				if output, err := empty(killAt(mark)); err == nil {
					t.Errorf("%s: not killed: %s", mark, output)
				}
				rescue()
				await(t, fmt.Sprintf("the trash to be empty, after a kill at %q and then %s", mark, name), func() bool {
					entries, err := os.ReadDir(trash)
					must(t, err)
					return len(entries) == 0
				})
			}
		}
	})
}

// manyLeftovers makes one of each kind of what gc removes.
func (h *host) manyLeftovers(t *testing.T) {
	t.Helper()
	stray := newID()
	h.drives(t, "prepare", "--id", stray, "bookworm")
	_, kill := h.preparedByRunner(t)
	kill()
	must(t, os.RemoveAll(filepath.Join(h.state, ".machines", stray)))
	h.hostileTrash(t)
	shell(t, "mkdir -p "+h.state+"/.cache/gitlab/1/unprotected && cd "+h.state+"/.cache/gitlab/1/unprotected && for i in 1 2 3; do head -c 2000000 /dev/zero >$i; done")
	shell(t, "cd "+h.state+"/.generations/killed && mkdir 20270101T000000Z && echo {} >20270101T000000Z.json && printf 20270101T000000Z >.build && ln -s nowhere .next")
	propagate := "/run/systemd/nspawn/propagate/run-" + newID()
	then := time.Now().Add(-time.Hour)
	must(t, os.MkdirAll(propagate, 0o700), os.Chtimes(propagate, then, then))
}

func TestAKilledGarbageCollectionIsFinishedByTheNext(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "cache_max: 1M\ncache_max_project: 3M\n")
	defer h.configure(t, "")
	h.addImage(t, "killed", "")
	gc := func(env string) (string, error) {
		h.manyLeftovers(t)
		cmd := exec.Command(faults(), "--config", h.config, "gc")
		cmd.Env = append(os.Environ(), env)
		output, err := cmd.CombinedOutput()
		return string(output), err
	}
	output, err := gc(tellMarks)
	must(t, err)
	marks := marksIn(t, output)
	t.Logf("%q", marks)
	for _, what := range []string{"machine  ", "unit  ", "trash  ", "cache  ", "build  ", "directory  "} {
		wantLog(t, output, "removed  "+what)
	}
	for _, mark := range marks {
		if output, err := gc(killAt(mark)); err == nil {
			t.Errorf("%s: not killed: %s", mark, output)
		}
		h.collect(t)
		if got := h.garbage(t); len(got) > 0 {
			t.Errorf("killed at %q: after another gc: %q", mark, got)
		}
		if h.checkNothingLeft(t); t.Failed() {
			t.Fatalf("killed at %q", mark)
		}
	}
}
