package integration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

func TestAJobRunsInABootedMachineOfItsOwn(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		id := newNumber()
		r := h.play(t, gitlab.Job{ID: id, Script: []string{
			"echo host=$(hostname) user=$(id -un) init=$(cat /proc/1/comm) state=$(systemctl is-system-running)",
			"test $(stat -c %u /etc) = 0",
			"test $(cut -c1-32 /proc/self/uid_map | awk '{print $2}') -ge 524288",
			"apt-get --version >/dev/null; dpkg -l systemd >/dev/null",
			"touch /only-in-this-machine",
		}})
		if r.Status != gitlab.Success {
			t.Fatalf("%+v\n%s", r.Status, r.Log)
		}
		wantLog(t, r.Log, fmt.Sprintf("host=run-%d user=root init=systemd state=running", id), "Using Custom executor with driver nspawn-runner")
		if _, err := os.Lstat(filepath.Join(h.state, "bookworm", "only-in-this-machine")); err == nil {
			t.Error("the job wrote into its image")
		}
		want := "config prepare prepare_script get_sources build_script cleanup_file_variables cleanup"
		if got := strings.Join(r.Names(), " "); got != want {
			t.Errorf("stages: got %s, want %s", got, want)
		}
		if cleanup := r.Last("cleanup"); cleanup.ExitStatus != 0 {
			t.Errorf("cleanup: %+v", cleanup)
		}
	})
}

func TestFilesStayFromOneSubStageToTheNext(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		r := h.play(t, gitlab.Job{
			Script:      []string{"mkdir -p out && echo made-here > out/artifact"},
			AfterScript: []string{"echo found: $(cat out/artifact)"},
		})
		wantLog(t, r.Log, "found: made-here")
	})
}

func TestTheScriptsExitCodeIsTheJobs(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	for _, test := range []struct {
		script string
		status int
		code   string
		stderr string
	}{
		{"true", 0, "", ""},
		{"exit 3", 1, "3", ""},
		{"false", 1, "1", ""},
		{"exit 255", 1, "255", ""},
		{"exit 203", 1, "203", ""}, // systemd's own code for a failed exec
		{"kill -KILL $$", 1, "137", "killed by signal 9"},
		{"kill -SEGV $$", 1, "139", "killed by signal 11"},
		{"kill -TERM $$", 1, "143", "killed by signal 15"},
		{"bash -c 'kill -KILL $$'; exit $?", 1, "137", ""},
		{"this-command-does-not-exist", 1, "127", ""},
	} {
		c := h.run(t, id, test.script)
		if c.status != test.status || c.code != test.code || !strings.Contains(c.stderr, test.stderr) {
			t.Errorf("%s: exit %d, code %q, %q; want %d, %q, %q", test.script, c.status, c.code, c.stderr, test.status, test.code, test.stderr)
		}
	}
}

func TestOutputComesOutByteForByteAndApart(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, `printf 'a\0b\377\r\033[1mc'; printf 'to stderr\0' >&2; echo reopened >/dev/stderr; echo -n again >/dev/stdout`)
	if c.stdout != "a\x00b\xff\r\x1b[1mcagain" {
		t.Errorf("stdout: %q", c.stdout)
	}
	if c.stderr != "to stderr\x00reopened\n" {
		t.Errorf("stderr: %q", c.stderr)
	}
}

func TestAHugeLogPassesWithBoundedMemory(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	// 50 MB without a single end of line.
	text := "head -c 50000000 /dev/zero | tr '\\0' x"
	c := h.run(t, id, text)
	sum := sha256.Sum256([]byte(strings.Repeat("x", 50000000)))
	if c.status != 0 || sha256.Sum256([]byte(c.stdout)) != sum {
		t.Errorf("exit %d, %d bytes: %s", c.status, len(c.stdout), c.stderr)
	}
	// Under the simulator, which knows how to measure: a child's rusage begins
	// at its parent's peak.
	r := h.play(t, gitlab.Job{ID: newNumber(), Script: []string{text}})
	if peak := r.Last("build_script").PeakRSS; r.Status != gitlab.Success || peak == 0 || peak > 40<<20 {
		t.Errorf("%s, and the driver took %d MiB", r.Status, peak>>20)
	}
}

func TestAScriptsSurroundingsAreSane(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.driveWith(t, []string{"HOSTS_SECRET=leaked", "CUSTOM_ENV_X=leaked"}, "run", "--id", id, script(t, `set -u
cat        # end of file at once, not the rest of this script
echo "$HOME $USER $LOGNAME $SHELL $PATH $DEBIAN_FRONTEND"
env | grep -c leaked
getent hosts localhost >/dev/null && getent hosts $(hostname) && test -s /etc/resolv.conf && echo resolves
ulimit -n
stat -f -c %T /tmp
command -v ps git python3 >/dev/null && echo tools
true`), "label")
	want := "/root root root /bin/bash /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin noninteractive\n0\n"
	if c.status != 0 || !strings.HasPrefix(c.stdout, want) {
		t.Errorf("exit %d:\n%s\n%s", c.status, c.stdout, c.stderr)
	}
	wantLog(t, c.stdout, "127.0.1.1", "resolves\n1024\noverlayfs\ntools\n")
}

func TestNamesAreResolvedByTheHostsResolver(t *testing.T) {
	h := onHost(t, "overlay")
	host, err := os.ReadFile("/etc/resolv.conf")
	must(t, err)
	id := h.prepared(t, "bookworm")
	if c := h.run(t, id, "cat /etc/resolv.conf"); c.stdout != string(host) {
		t.Errorf("resolv.conf: %q, the host's is %q", c.stdout, host)
	}
	// A name that must resolve wherever the tests run: the mirror's.
	lookup := `getent ahosts $(sed -n 's|^deb http://\([^/]*\).*|\1|p' /etc/apt/sources.list | head -n 1)`
	if c := h.run(t, id, lookup); c.status != 0 || c.stdout == "" {
		t.Errorf("the mirror's name: %+v", c)
	}
}

func TestABackgroundProcessNeitherHoldsTheStageNorReachesTheNext(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "sleep 1000 & echo started")
	if c.status != 0 || c.stdout != "started\n" {
		t.Errorf("exit %d: %q %q", c.status, c.stdout, c.stderr)
	}
	if c := h.run(t, id, "pgrep sleep; true"); c.stdout != "" {
		t.Errorf("still running: %s", c.stdout)
	}
	// One that gets away to a unit of its own holds our pipe, and must not.
	c = h.run(t, id, "systemd-run -q --pipe --unit=away sleep 1000 & until systemctl -q is-active away; do sleep 0.1; done; echo escaped")
	if c.status != 0 || c.stdout != "escaped\n" {
		t.Errorf("exit %d: %q %q", c.status, c.stdout, c.stderr)
	}
}

// used is the line on what a job used.
var used = regexp.MustCompile(`(?m)^job: ([^,\n]+), processor ([^,\n]+)(?:, memory (\d+) MiB at most)?(?:, \d+ MiB written to disk)?$`)

func TestAJobsLogEndsWithWhatItUsed(t *testing.T) {
	h := onHost(t, "overlay")
	job := gitlab.Job{Script: []string{"head -c 300M /dev/urandom >/dev/null"}}
	r := h.play(t, job)
	found := used.FindAllStringSubmatch(r.Log, -1)
	if len(found) != 1 {
		t.Fatal(r.Log)
	}
	elapsed, err := time.ParseDuration(found[0][1])
	processor, err2 := time.ParseDuration(found[0][2])
	if err != nil || err2 != nil || elapsed < time.Second/10 || elapsed > 5*time.Minute || processor < time.Second/10 || processor > elapsed*time.Duration(runtime.NumCPU()) {
		t.Errorf("%q", found[0])
	}

	h.configure(t, "usage: false\n")
	defer h.configure(t, "")
	if r := h.play(t, job); used.MatchString(r.Log) {
		t.Error(r.Log)
	}
}

// standIn is a program that plays gitlab-runner's part inside the machine.
const standIn = `#!/bin/sh
echo "stand-in gitlab-runner $1"
case $1 in
cache-extractor) shift; while [ $# -gt 0 ]; do [ "$1" = --file ] && tar -xf "$2" 2>/dev/null; shift; done; exit 0;;
cache-archiver) shift; paths=; while [ $# -gt 0 ]; do case $1 in --file) f=$2; shift;; --path) paths="$paths $2"; shift;; esac; shift; done
	mkdir -p $(dirname $f) && tar -cf $f $paths;;
esac
`

func TestArtifactsAndCacheUseTheHostsGitlabRunner(t *testing.T) {
	h := onHost(t, "overlay")
	program := filepath.Join(t.TempDir(), "gitlab-runner")
	must(t, os.WriteFile(program, []byte(standIn), 0o755))
	h.configure(t, "gitlab_runner: "+program+"\n")
	t.Cleanup(func() { h.configure(t, ""); os.RemoveAll(filepath.Join(h.state, ".cache")) })

	yes, no := true, false
	job := func(project int64, protected *bool) gitlab.Result {
		return h.play(t, gitlab.Job{
			ID: newNumber(), Project: gitlab.Project{ID: project},
			Git:       gitlab.Git{Protected: protected},
			Script:    []string{"echo cached: $(cat kept/file 2>/dev/null || echo nothing)", "mkdir -p kept; echo from-the-first > kept/file", "! touch /usr/local/bin/gitlab-runner"},
			Artifacts: []gitlab.Artifact{{Paths: []string{"kept"}}},
			Cache:     []gitlab.Cache{{Key: "k", Paths: []string{"kept"}}},
		})
	}
	first := job(7, &yes)
	if first.Status != gitlab.Success {
		t.Fatal(first.Log)
	}
	wantLog(t, first.Log, "cached: nothing", "stand-in gitlab-runner artifacts-uploader", "stand-in gitlab-runner cache-archiver")
	wantLog(t, job(7, &yes).Log, "cached: from-the-first")
	// Neither another project nor an unprotected branch sees it.
	wantLog(t, job(8, &yes).Log, "cached: nothing")
	wantLog(t, job(7, &no).Log, "cached: nothing")
	wantLog(t, job(7, nil).Log, "cached: from-the-first") // as unprotected

	// On the disk it belongs to root, and cannot be more than a file.
	out := shell(t, "find "+filepath.Join(h.state, ".cache")+" -name '*.zip' -printf '%u %m\\n' | sort -u")
	if !strings.HasPrefix(out, "root ") || strings.Count(out, "\n") != 1 {
		t.Errorf("cache files: %s", out)
	}
}

func TestACacheHoldsNoDevicesAndNothingSetuidRuns(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			h := onHost(t, backend)
			t.Cleanup(func() { os.RemoveAll(filepath.Join(h.state, ".cache")) })
			r := h.play(t, gitlab.Job{Script: []string{"findmnt -no OPTIONS /cache", "touch /cache/mine; stat -c owner=%u /cache/mine"}})
			wantLog(t, r.Log, "nosuid,nodev", "owner=0")
		})
	}
}

func TestTheCallersOwnProgramIsTheMachinesGitlabRunner(t *testing.T) {
	h := onHost(t, "overlay")
	// A shell that is called gitlab-runner plays its part outside, and shows
	// inside by what it is.
	program := filepath.Join(t.TempDir(), "gitlab-runner")
	shell(t, "cp /bin/bash "+program)
	// And the host's step-runner is found in PATH, also behind a link.
	steps := t.TempDir()
	must(t, os.WriteFile(filepath.Join(steps, "steps"), []byte("#!/bin/sh\necho step-runner \"$1\"\n"), 0o755), os.Symlink("steps", filepath.Join(steps, "step-runner")))
	id := newID()
	response := filepath.Join(t.TempDir(), "response.json")
	must(t, os.WriteFile(response, []byte(`{"id":`+id+`,"token":"t","image":{"name":"bookworm"}}`), 0o600))
	call := func(stage string) string {
		cmd := exec.Command(program, "-c", fmt.Sprintf("setsid --wait %s --config %s %s; echo exit $?", h.driver, h.config, stage))
		cmd.Env = append(os.Environ(), "JOB_RESPONSE_FILE="+response, "PATH="+steps+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		must(t, err)
		return string(out)
	}
	if out := call("prepare"); out != "exit 0\n" {
		t.Errorf("prepare: %s", out)
	}
	if out := call("run " + script(t, "gitlab-runner -c 'echo $BASH'; step-runner ci; ! touch /usr/local/bin/step-runner 2>/dev/null")); out != "/usr/local/bin/gitlab-runner\nstep-runner ci\nexit 0\n" {
		t.Errorf("run: %s", out)
	}
	if out := call("cleanup"); out != "exit 0\n" {
		t.Errorf("cleanup: %s", out)
	}
}

func TestAnImageMayHaveItsOwnGitlabRunner(t *testing.T) {
	h := onHost(t, "overlay")
	program := filepath.Join(t.TempDir(), "gitlab-runner")
	must(t, os.WriteFile(program, []byte(standIn), 0o755))
	h.configure(t, "gitlab_runner: "+program+"\n")
	t.Cleanup(func() { h.configure(t, "") })
	h.addImage(t, "own", "printf '#!/bin/sh\\necho of the image\\n' > usr/bin/gitlab-runner; chmod 755 usr/bin/gitlab-runner")
	c := h.run(t, h.prepared(t, "own"), "gitlab-runner")
	if c.stdout != "of the image\n" {
		t.Errorf("%q %q", c.stdout, c.stderr)
	}
}

func TestTryEndsWithTheCommandsCode(t *testing.T) {
	h := onHost(t, "overlay")
	c := h.drive(t, "try", "bookworm", "--", "sh", "-c", `echo "it's $1"; exit 7`, "sh", "a $b 'c'")
	if c.status != 7 || c.stdout != "it's a $b 'c'\n" {
		t.Errorf("exit %d: %q %q", c.status, c.stdout, c.stderr)
	}
	c = h.drive(t, "try", "registry.example.org:5000/ci/debian:bookworm", script(t, "echo from a file"))
	if c.status != 0 || c.stdout != "from a file\n" {
		t.Errorf("exit %d: %q %q", c.status, c.stdout, c.stderr)
	}
}

func TestMachineListShowsWhatRuns(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	if c := h.drive(t, "machine", "list"); !strings.Contains(c.stdout, id) || !strings.Contains(c.stdout, "running") {
		t.Errorf("%s %s", c.stdout, c.stderr)
	}
	if c := h.drive(t, "machine", "list", "--json"); !strings.Contains(c.stdout, `"name": "run-`+id+`"`) {
		t.Errorf("%s %s", c.stdout, c.stderr)
	}
}

func TestTopIsLiveAtATerminalAndPrintsOnceElsewhere(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "disk_max: 2G\n")
	t.Cleanup(func() { h.configure(t, "") })
	id := h.prepared(t, "bookworm")
	for _, args := range [][]string{{"top"}, {"machine", "list"}} {
		if c := h.drive(t, args...); c.status != 0 || !strings.HasPrefix(c.stdout, "ID ") || !strings.Contains(c.stdout, "\n"+id+" ") || !strings.Contains(c.stdout, "%/2.0G") || strings.Contains(c.stdout, "\x1b") {
			t.Errorf("%q: %+v", args, c)
		}
	}
	if c := h.drive(t, "top", "--json"); c.status != 0 || !strings.Contains(c.stdout, `"now": "running"`) || !strings.Contains(c.stdout, `"cpu_seconds": `) {
		t.Errorf("%+v", c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	live := exec.CommandContext(ctx, "script", "--quiet", "--return", "--command", fmt.Sprintf("stty -a | md5sum; %s --config %s top; echo ended $?; stty -a | md5sum", h.driver, h.config), "/dev/null")
	live.Env = append(os.Environ(), "TERM=xterm")
	typing, err := live.StdinPipe()
	must(t, err)
	shown, err := live.StdoutPipe()
	must(t, err, live.Start())
	screen, some, script := "", make([]byte, 4096), make(chan call, 1)
	await := func(text string) {
		for err == nil && !strings.Contains(screen, text) {
			var n int
			n, err = shown.Read(some)
			screen += string(some[:n])
		}
	}
	await("\n" + id + " ")
	go func() { script <- h.run(t, id, "until [ -e /shown ]; do sleep 0.1; done") }()
	await("build_script")
	h.run(t, id, "touch /shown")
	_, typeErr := typing.Write([]byte("q"))
	await("ended 0")
	rest, _ := io.ReadAll(shown)
	screen += string(rest)
	if waitErr := live.Wait(); waitErr != nil || typeErr != nil {
		t.Errorf("%v, %v: %q", waitErr, typeErr, screen)
	}
	if sums := regexp.MustCompile(`[0-9a-f]{32}`).FindAllString(screen, -1); len(sums) != 2 || sums[0] != sums[1] {
		t.Errorf("the terminal is not as before: %q", screen)
	}
	<-script
}

func TestMachineLoginOpensAShellAtATerminalAndRefusesElsewhere(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	if c := h.drive(t, "machine", "login", id); c.status != 1 || !strings.Contains(c.stderr, "needs a terminal") {
		t.Errorf("%+v", c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	login := exec.CommandContext(ctx, "script", "--quiet", "--command", fmt.Sprintf("%s --config %s machine login %s", h.driver, h.config, id), "/dev/null")
	typing, err := login.StdinPipe()
	must(t, err)
	shown, err := login.StdoutPipe()
	must(t, err, login.Start())
	screen, some := "", make([]byte, 4096)
	for err == nil {
		var n int
		n, err = shown.Read(some)
		screen += string(some[:n])
		if strings.HasSuffix(screen, "root@run-"+id+":~# ") { // typed before, it would be lost
			_, err = typing.Write([]byte("exit\n"))
		}
	}
	if waitErr := login.Wait(); err != io.EOF || waitErr != nil {
		t.Errorf("%v, %v: %q", err, waitErr, screen)
	}
}
