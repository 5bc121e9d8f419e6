package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// backends are all of them; a test that is not about storage uses the first.
var backends = []string{"overlay", "btrfs", "tmpfs"}

// host is a state directory on one backend, with a configuration of its own.
type host struct {
	driver, config, state, playbooks string
	backend                          string
	// before is what was on the host when the test began: what another one
	// left is that one's failure.
	before []string
}

var (
	installMu sync.Mutex
	installed = map[string]*host{}
)

// onHost returns the host with a backend, and checks when the test ends that
// the test left nothing on it.
func onHost(t *testing.T, backend string) *host {
	t.Helper()
	h := install(t, backend)
	h.before = h.leftovers(t)
	t.Cleanup(func() { h.checkNothingLeft(t) })
	return h
}

// impatient is the host with the driver that is built for tests, which waits for buses that do not
// answer a tenth of the usual time.
func (h *host) impatient(t *testing.T) *host {
	t.Helper()
	t.Setenv("NSPAWN_RUNNER_ANSWER_LIMIT", "3s")
	quick := *h
	quick.driver = faults()
	return &quick
}

// allowManyMachines raises for a test the host's limit of inotify instances, as the doctor
// advises. A lab shares this limit with all that runs beside it.
func allowManyMachines(t *testing.T) {
	t.Helper()
	const limit, enough = "/proc/sys/fs/inotify/max_user_instances", 1024
	before := shell(t, "cat "+limit)
	if number(t, before) >= enough {
		return
	}
	must(t, os.WriteFile(limit, []byte(strconv.Itoa(enough)), 0))
	t.Cleanup(func() { must(t, os.WriteFile(limit, []byte(before), 0)) })
}

// onEach runs a test on each backend.
func onEach(t *testing.T, test func(*testing.T, *host)) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) { test(t, onHost(t, backend)) })
	}
}

// onDisks runs a test on the backends whose trees differ on the disk: tmpfs has overlay's
// images, and nothing else.
func onDisks(t *testing.T, test func(*testing.T, *host)) {
	for _, backend := range []string{"overlay", "btrfs"} {
		t.Run(backend, func(t *testing.T) { test(t, onHost(t, backend)) })
	}
}

// install makes the host with a backend and the image bookworm, once.
func install(t *testing.T, backend string) *host {
	t.Helper()
	if os.Getenv("NSPAWN_RUNNER_DRIVER") == "" {
		t.Skip("needs a host: run 'go tool mage test:lab' or test:vm")
	}
	installMu.Lock()
	defer installMu.Unlock()
	h := place(t, backend)
	if _, err := os.Stat(filepath.Join(h.state, "bookworm")); err != nil { // else: a second boot of this host
		h.addImage(t, "bookworm", "")
	}
	return h
}

// place makes the state directory of a backend, once. Its caller holds installMu.
func place(t *testing.T, backend string) *host {
	t.Helper()
	if h := installed[backend]; h != nil {
		return h
	}
	top := filepath.Join(os.Getenv("NSPAWN_RUNNER_SCRATCH"), backend)
	h := &host{
		driver:    os.Getenv("NSPAWN_RUNNER_DRIVER"),
		config:    top + ".yaml",
		state:     filepath.Join(top, "state"),
		playbooks: top + ".playbooks",
		backend:   backend,
	}
	must(t, os.MkdirAll(top, 0o755), os.MkdirAll(h.playbooks, 0o755))
	if os.Getenv("NSPAWN_RUNNER_HOST") != "vm" { // which has disks
		mountNew(t, backend, top)
	}
	must(t, os.MkdirAll(h.state, 0o700))
	h.configure(t, "")
	installed[backend] = h
	return h
}

// mountNew mounts a new file system for a backend. That of the outer machine may be an ext4
// without a journal, which makes new files slowly where many were removed in the minutes
// before: a copy of an image took 5 to 10 s in place of 1 s (recently_deleted() in
// fs/ext4/ialloc.c).
func mountNew(t *testing.T, backend, top string) {
	t.Helper()
	file, mkfs, options := top+".img", "mkfs.ext4 -q", "loop,noinit_itable"
	if backend == "btrfs" {
		mkfs, options = "mkfs.btrfs -q", "loop"
	}
	must(t, os.WriteFile(file, nil, 0o600), os.Truncate(file, 16<<30))
	shell(t, mkfs+" "+file+" && mount -o "+options+" "+file+" "+top)
}

// configure writes the host's configuration: further lines of YAML.
func (h *host) configure(t *testing.T, more string) {
	t.Helper()
	text := fmt.Sprintf("state_dir: %s\nplaybook_dir: %s\nbackend: %s\n%s", h.state, h.playbooks, h.backend, more)
	if !strings.Contains(more, "boot_timeout") {
		// Without KVM a VM is ten times as slow.
		text += "boot_timeout: 180s\n"
	}
	must(t, os.WriteFile(h.config, []byte(text), 0o644))
}

// addImage installs a copy of the base tree as an image, and changes it with a
// shell script that runs in the copy's directory. Unless it is bookworm, the image
// lasts as long as the test.
func (h *host) addImage(t *testing.T, name, change string) {
	t.Helper()
	h.makeImage(t, name, change)
	if name != "bookworm" {
		t.Cleanup(func() { h.removeImage(t, name) })
	}
}

// makeImage is addImage of an image that stays.
func (h *host) makeImage(t *testing.T, name, change string) {
	t.Helper()
	generation := filepath.Join(h.state, ".generations", name, "20260101T000000Z")
	must(t, os.MkdirAll(filepath.Dir(generation), 0o755))
	base, top := os.Getenv("NSPAWN_RUNNER_BASE"), filepath.Dir(h.state)
	switch {
	case h.backend == "btrfs" && name == "bookworm" && os.Getenv("NSPAWN_RUNNER_HOST") == "vm":
		// The disk was made with the base tree, which saves the VM a minute.
		shell(t, "btrfs -q subvolume snapshot "+top+" "+generation+" && rm -r "+generation+"/state")
	case h.backend == "btrfs" && name == "bookworm":
		shell(t, "btrfs -q subvolume create "+generation+" && cp -a "+base+"/. "+generation)
	case h.backend == "btrfs":
		shell(t, "btrfs -q subvolume snapshot "+filepath.Join(h.state, "bookworm")+"/ "+generation)
	case name == "bookworm":
		// Where base lies on the same disk, hard links save a VM half a minute.
		shell(t, "cp -al "+base+" "+generation+" 2>/dev/null || { rm -rf "+generation+"; cp -a "+base+" "+generation+"; }")
	default:
		// Hard links are as good as a copy as long as change only removes and adds.
		shell(t, "cp -al "+filepath.Join(h.state, "bookworm")+"/. "+generation)
	}
	if change != "" {
		shell(t, "cd "+generation+" && "+change)
	}
	must(t, os.Symlink(filepath.Join(".generations", name, "20260101T000000Z"), filepath.Join(h.state, name)))
}

// copyImage installs a copy of a tree of the host as an image that stays.
func (h *host) copyImage(t *testing.T, name, tree string) {
	t.Helper()
	generation := filepath.Join(".generations", name, "20260101T000000Z")
	path := filepath.Join(h.state, generation)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	create := "mkdir "
	if h.backend == "btrfs" {
		create = "btrfs -q subvolume create "
	}
	shell(t, create+path+" && cp -a "+tree+"/. "+path)
	must(t, os.Symlink(generation, filepath.Join(h.state, name)))
}

// removeImage removes all that there is of an image.
func (h *host) removeImage(t *testing.T, name string) {
	t.Helper()
	generations := filepath.Join(h.state, ".generations", name)
	if h.backend == "btrfs" {
		shell(t, "for d in "+generations+"/*/; do btrfs -q subvolume delete $d 2>/dev/null; done; true")
	}
	must(t, os.RemoveAll(filepath.Join(h.state, name)), os.RemoveAll(generations))
}

// runner is a gitlab-runner that uses the driver on this host.
func (h *host) runner() gitlab.Runner {
	command := func(args ...string) gitlab.Command {
		return gitlab.Command{Exec: h.driver, Args: append([]string{"--config", h.config}, args...)}
	}
	return gitlab.Runner{
		Driver: gitlab.Driver{
			Config:              command("gitlab-config"),
			Prepare:             command("prepare"),
			Run:                 command("run"),
			Cleanup:             command("cleanup"),
			GracefulKillTimeout: 30 * time.Second,
		},
		RetryPause: time.Millisecond,
	}
}

// allowing is a gitlab-runner whose jobs may have images of these names that give more
// than others do.
func (h *host) allowing(patterns ...string) gitlab.Runner {
	r := h.runner()
	for _, pattern := range patterns {
		r.Driver.Prepare.Args = append(r.Driver.Prepare.Args, "--allow-image="+pattern)
	}
	return r
}

// play plays a job and returns what became of it.
func (h *host) play(t *testing.T, job gitlab.Job) gitlab.Result {
	t.Helper()
	return h.playOn(t, h.runner(), job)
}

func (h *host) playOn(t *testing.T, r gitlab.Runner, job gitlab.Job) gitlab.Result {
	t.Helper()
	if job.Image.Name == "" {
		job.Image.Name = "bookworm"
	}
	r.Dir = t.TempDir()
	result, err := r.Run(t.Context(), job)
	must(t, err)
	return result
}

// call is one call of the driver by hand, as another CI system would.
type call struct {
	status         int
	stdout, stderr string
	code           string // content of BUILD_EXIT_CODE_FILE, or ""
}

// drive calls the driver, for a stage with gitlab-runner's exit codes in the
// environment, but without a response file.
func (h *host) drive(t *testing.T, args ...string) call {
	t.Helper()
	return h.driveWith(t, nil, args...)
}

func (h *host) driveWith(t *testing.T, env []string, args ...string) call {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.driver, append([]string{"--config", h.config}, args...)...)
	codeFile := filepath.Join(t.TempDir(), "code")
	cmd.Env = append(os.Environ(), env...)
	if slices.Contains([]string{"prepare", "run", "cleanup"}, args[0]) {
		cmd.Env = append(cmd.Env, "BUILD_FAILURE_EXIT_CODE=1", "SYSTEM_FAILURE_EXIT_CODE=2", "BUILD_EXIT_CODE_FILE="+codeFile)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	c := call{status: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	if data, err := os.ReadFile(codeFile); err == nil {
		c.code = string(data)
	}
	return c
}

// prepared starts a machine that lasts as long as the test.
func (h *host) prepared(t *testing.T, image string) (id string) {
	t.Helper()
	id = newID()
	c := h.drive(t, "prepare", "--id", id, "--allow-image=*", image)
	if c.status != 0 {
		t.Fatalf("prepare: exit %d: %s", c.status, c.stderr)
	}
	t.Cleanup(func() {
		// t.Context is over by now.
		out, err := exec.Command(h.driver, "--config", h.config, "cleanup", "--id", id).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("cleanup of %s: %v: %s", id, err, out)
		}
	})
	return id
}

// script writes a script to a file outside the machine.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(path, []byte(text), 0o700))
	return path
}

// run executes a script in a machine.
func (h *host) run(t *testing.T, id, text string) call {
	t.Helper()
	return h.drive(t, "run", "--id", id, script(t, text), "build_script")
}

var lastID = int64(time.Now().UnixMilli() % 1e9)

// newID is a job's id that no other test has.
func newID() string { return strconv.FormatInt(newNumber(), 10) }

var numberMu sync.Mutex

func newNumber() int64 {
	numberMu.Lock()
	defer numberMu.Unlock()
	lastID++
	return lastID
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// shell runs a shell command of the test's own and returns its output.
func shell(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("bash", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// checkNothingLeft searches the host for what a driver may leave behind.
func (h *host) checkNothingLeft(t *testing.T) {
	t.Helper()
	// Only systemd's own bookkeeping, and the deletion of a big tree, may take
	// a moment after a job's end: on a slow disk a long one.
	deadline := time.Now().Add(patience)
	for {
		left := slices.DeleteFunc(h.leftovers(t), func(line string) bool { return slices.Contains(h.before, line) })
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leftovers is asked for before and after each test, and until there are none: so it reads
// what the kernel tells, where that is as good as a program that does.
func (h *host) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	add := func(what, output string) {
		for line := range strings.Lines(output) {
			if line = strings.TrimSpace(line); line != "" {
				left = append(left, what+": "+line)
			}
		}
	}
	add("unit", shell(t, "systemctl list-units --all --plain --no-legend 'nspawn-runner*' 'run-*.scope' 2>/dev/null"))
	if known, _ := os.ReadDir("/run/systemd/machines"); len(known) > 0 {
		// systemd-machined forgets a machine whose end it has missed, as during a restart of
		// D-Bus, when it is asked.
		add("machine", shell(t, "machinectl list --no-legend 2>/dev/null"))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if machinesMount.MatchString(line) {
			add("mount", line)
		}
	}
	for _, dir := range []string{
		filepath.Join(h.state, ".machines"), filepath.Join(h.state, ".trash"),
		// In /run/systemd/machines systemd-machined has a file for each machine it knows.
		"/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export", "/run/systemd/machines", "/run/nspawn-runner",
	} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			add("file", filepath.Join(dir, e.Name()))
		}
	}
	told, _ := filepath.Glob("/run/systemd/units/*:nspawn-runner-*") // what systemd tells journald of a unit
	add("file", strings.Join(told, "\n"))
	add("loop device", h.loops(t))
	add("process", machinesProcesses())
	if h.backend == "btrfs" {
		add("subvolume", shell(t, "btrfs subvolume list "+filepath.Dir(h.state)+" | grep -v -e ' path state/.generations/' -e ' path state/.bases/' -e ' path state/.oci/sha256-' || true"))
	}
	return left
}

// machinesMount is a line of mountinfo of a machine's mounts.
var machinesMount = regexp.MustCompile(`\.machines/|/nspawn/[a-z-]+/run-`)

// machinesProcesses lists the processes of machines, by their user ids, and those that
// serve one.
func machinesProcesses() string {
	var all strings.Builder
	paths, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue // it ended
		}
		uid := info.Sys().(*syscall.Stat_t).Uid
		line, _ := os.ReadFile(path + "/cmdline")
		args := string(bytes.TrimSpace(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		if uid >= 100000 || strings.Contains(args, "systemd-nspawn") || strings.Contains(args, "pasta --quiet") {
			fmt.Fprintf(&all, "%d %s %.200q\n", uid, filepath.Base(path), args)
		}
	}
	return all.String()
}

// patience is how long a test waits for what is certain to come, however slow the machine is.
const patience = 2 * time.Minute

// await polls for a condition that the kernel or systemd brings about.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// wantLog checks that a log contains texts.
func wantLog(t *testing.T, log string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(log, text) {
			t.Errorf("want %q in:\n%s", text, log)
		}
	}
}
