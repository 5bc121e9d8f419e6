package gitlab_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/test/gitlab"
)

// The test binary is the driver, too: it writes down how it was called, and
// then behaves as the test's plan says. Under the name gitlab-runner it is the
// program that scripts look for in the machine.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "gitlab-runner":
		os.Exit(fakeRunnerProgram())
	case os.Getenv("FAKE_DIR") != "":
		os.Exit(fakeDriver())
	}
	flag.Parse()
	flag.Set("test.parallel", "8") // tests mostly wait for processes
	os.Exit(m.Run())
}

// act is what the fake driver does in one call, in the order of the fields.
type act struct {
	Stdout, Stderr string
	Code           string // for BUILD_EXIT_CODE_FILE; "directory" makes it one
	Child          string // started and left behind with our pipes: shell text
	Session        bool   // the child is in a session of its own
	Script         bool   // run the script in bash, with its exit code as ours
	Allocate       int    // MiB of memory, used
	Spin           bool   // use a processor for spun
	Hang           bool   // say so, until SIGTERM
	Deaf           bool   // ... which is not heard
	Exit           int
	Signal         syscall.Signal // to ourselves instead
}

// spun is the time of a processor that a driver that spins uses at least.
const spun = 60 * time.Millisecond

// call is how the fake driver was called.
type call struct {
	Name      string // stage, or run's sub-stage
	Args      []string
	Env       map[string]string
	Dir       string
	Pid       int
	Pgid      int
	Sid       int
	Ppid      int
	Fds       [3]string
	Script    string
	Modes     map[string]string // of response file, script directory and script
	Response  string
	Terminate bool // got SIGTERM while it hung
}

func fakeDriver() int {
	name := map[string]string{"gitlab-config": "config"}[os.Args[1]]
	if name == "" {
		name = os.Args[1]
	}
	if name == "run" {
		name = os.Args[len(os.Args)-1]
	}
	dir := os.Getenv("FAKE_DIR")
	before, _ := filepath.Glob(filepath.Join(dir, "*-"+name+".json"))
	all, _ := filepath.Glob(filepath.Join(dir, "*-*.json"))
	record := filepath.Join(dir, fmt.Sprintf("%03d-%07d-%s.json", len(all), os.Getpid(), name))
	c := observe(name)
	write(record, c)

	var plan map[string][]act
	if err := json.Unmarshal([]byte(os.Getenv("FAKE_PLAN")), &plan); err != nil {
		panic(err)
	}
	acts := plan[name]
	if acts == nil && os.Args[1] == "run" {
		acts = plan["run"]
	}
	if len(acts) == 0 {
		return 0
	}
	a := acts[min(len(before), len(acts)-1)]

	terminated := make(chan os.Signal, 1)
	if a.Hang || a.Deaf {
		signal.Notify(terminated, syscall.SIGTERM)
	}
	fmt.Fprint(os.Stdout, a.Stdout)
	fmt.Fprint(os.Stderr, a.Stderr)
	switch {
	case a.Code == "directory":
		must(os.Mkdir(os.Getenv("BUILD_EXIT_CODE_FILE"), 0o700))
	case a.Code != "":
		must(os.WriteFile(os.Getenv("BUILD_EXIT_CODE_FILE"), []byte(a.Code), 0o600))
	}
	if a.Child != "" {
		child := exec.Command("bash", "-c", a.Child)
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: a.Session}
		must(child.Start())
	}
	if a.Script {
		script := exec.Command("bash", os.Args[len(os.Args)-2])
		script.Stdout, script.Stderr = os.Stdout, os.Stderr
		if exit := (*exec.ExitError)(nil); errors.As(script.Run(), &exit) {
			code := strconv.Itoa(exit.ExitCode())
			must(os.WriteFile(os.Getenv("BUILD_EXIT_CODE_FILE"), []byte(code+"\n"), 0o600))
			return 1
		}
	}
	if a.Allocate > 0 {
		allocate(a.Allocate)
	}
	if a.Spin {
		for used := (unix.Rusage{}); used.Utime.Nano() < int64(spun); {
			_ = unix.Getrusage(unix.RUSAGE_SELF, &used)
		}
	}
	if a.Hang {
		fmt.Fprintln(os.Stderr, name, "hangs")
		<-terminated
		c.Terminate = true
		write(record, c)
		if a.Deaf {
			select {}
		}
	}
	if a.Signal != 0 {
		must(syscall.Kill(os.Getpid(), a.Signal))
		select {}
	}
	return a.Exit
}

// allocate takes MiB of memory that count at once, and for which a race
// detector needs none of its own.
func allocate(mebibytes int) []byte {
	memory, err := unix.Mmap(-1, 0, mebibytes<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	must(err)
	return memory
}

func observe(name string) call {
	c := call{Name: name, Args: os.Args, Env: map[string]string{}, Modes: map[string]string{}, Pid: os.Getpid(), Ppid: os.Getppid()}
	for _, v := range os.Environ() {
		key, value, _ := strings.Cut(v, "=")
		c.Env[key] = value
	}
	c.Dir, _ = os.Getwd()
	c.Pgid, _ = syscall.Getpgid(0)
	c.Sid, _ = unix.Getsid(0)
	for i := range c.Fds {
		c.Fds[i], _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", i))
	}
	response, _ := os.ReadFile(c.Env["JOB_RESPONSE_FILE"])
	c.Response = string(response)
	files := map[string]string{"response": c.Env["JOB_RESPONSE_FILE"]}
	if len(os.Args) > 3 && os.Args[1] == "run" {
		file := os.Args[len(os.Args)-2]
		text, _ := os.ReadFile(file)
		c.Script = string(text)
		files["script"], files["script directory"] = file, filepath.Dir(file)
	}
	for what, file := range files {
		if info, err := os.Stat(file); err == nil {
			c.Modes[what] = info.Mode().Perm().String()
		}
	}
	return c
}

// write replaces a record as a whole: the test may be reading it.
func write(file string, c call) {
	text, err := json.Marshal(c)
	must(err)
	must(os.WriteFile(file+".new", text, 0o600))
	must(os.Rename(file+".new", file))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// fakeRunnerProgram keeps an archive's arguments as its content.
func fakeRunnerProgram() int {
	args := os.Args[1:]
	said := strings.Join(args, " ")
	fmt.Println("gitlab-runner", said)
	switch args[0] {
	case "cache-archiver":
		must(os.MkdirAll(filepath.Dir(args[2]), 0o700))
		must(os.WriteFile(args[2], []byte(said), 0o600))
	case "cache-extractor":
		if _, err := os.Stat(args[2]); err != nil {
			return 1
		}
	case "artifacts-uploader":
		if strings.Contains(said, "--path missing") {
			return 1
		}
	}
	return 0
}

// fake is a driver with a plan, and the runner that calls it.
type fake struct {
	gitlab.Runner
	t    *testing.T
	dir  string
	plan map[string][]act
}

// quick stands in front of the fake driver: a stage that is not in the plan
// succeeds, or runs its script, without the cost of starting a test binary.
const quick = `
name=${1#gitlab-}; if [ "$1" = run ]; then for name; do :; done; fi
case " $FAKE_STAGES " in *" ${1#gitlab-} "* | *" $name "*) exec "$0" "$@" ;; esac
if [ "$1" = run ] && [ -n "$FAKE_SCRIPTS" ]; then
	bash "$2" || { echo $? > "$BUILD_EXIT_CODE_FILE"; exit 1; }
fi`

// newRecorder is a fake driver that writes down every call.
func newRecorder(t *testing.T, plan map[string][]act) *fake {
	t.Helper()
	f := newFake(t, plan)
	for _, c := range []*gitlab.Command{&f.Driver.Config, &f.Driver.Prepare, &f.Driver.Run, &f.Driver.Cleanup} {
		c.Exec, c.Args = c.Args[2], c.Args[3:]
	}
	return f
}

// newFake is a fake driver that knows only the stages in its plan.
func newFake(t *testing.T, plan map[string][]act) *fake {
	t.Helper()
	t.Parallel()
	exe, err := os.Executable()
	must(err)
	f := &fake{t: t, dir: t.TempDir(), plan: plan}
	must(os.Mkdir(filepath.Join(f.dir, "tmp"), 0o700))
	command := func(args ...string) gitlab.Command {
		return gitlab.Command{Exec: "/bin/sh", Args: append([]string{"-c", quick, exe}, args...)}
	}
	f.Runner = gitlab.Runner{
		Driver: gitlab.Driver{
			Config:              command("gitlab-config"),
			Prepare:             command("prepare", "--verbose"),
			Run:                 command("run"),
			Cleanup:             command("cleanup"),
			GracefulKillTimeout: 10 * time.Second,
			ForceKillTimeout:    5 * time.Second,
			BuildsDir:           filepath.Join(f.dir, "builds"),
			CacheDir:            filepath.Join(f.dir, "cache"),
		},
		Dir:          filepath.Join(f.dir, "tmp"),
		RetryPause:   time.Millisecond,
		AttemptPause: time.Millisecond,
	}
	return f
}

// play plays a job to its end, with the plan as it is now.
func (f *fake) play(job gitlab.Job) gitlab.Result {
	f.t.Helper()
	return f.playIn(context.Background(), job)
}

func (f *fake) playIn(ctx context.Context, job gitlab.Job) gitlab.Result {
	f.t.Helper()
	plan, err := json.Marshal(f.plan)
	must(err)
	stages := strings.Join(slices.Collect(maps.Keys(f.plan)), " ")
	runner := f.Runner
	// A race detector would wait a second for races at the end of each process.
	runner.Env = append(slices.Clip(f.Env), "FAKE_DIR="+f.dir, "FAKE_PLAN="+string(plan), "FAKE_STAGES="+stages, "GORACE=atexit_sleep_ms=0")
	if job.Script == nil {
		job.Script = []string{"true"}
	}
	r, err := runner.Run(ctx, job)
	if err != nil {
		f.t.Error(err)
	}
	return r
}

// calls are all that the driver has seen so far.
func (f *fake) calls() []call {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join(f.dir, "*-*.json"))
	must(err)
	var calls []call
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(err)
		var c call
		must(json.Unmarshal(text, &c))
		calls = append(calls, c)
	}
	return calls
}

// lastCall is the latest call of a stage or sub-stage.
func (f *fake) lastCall(name string) call {
	f.t.Helper()
	calls := f.calls()
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Name == name {
			return calls[i]
		}
	}
	f.t.Fatalf("%s was never called", name)
	return call{}
}

// at calls the test back when a stage hangs, once.
func (f *fake) at(name string, do func(*gitlab.Running)) {
	done := false
	f.OnLine = func(job *gitlab.Running, line string) {
		if line == name+" hangs" && !done {
			done = true
			do(job)
		}
	}
}

// patience is a stage's timeout in tests that let it run out: time enough for
// the fake driver to start, even on a busy machine.
const patience = 3 * time.Second

func wantNames(t *testing.T, r gitlab.Result, want string) {
	t.Helper()
	if got := strings.Join(r.Names(), " "); got != want {
		t.Errorf("stages:\n got %s\nwant %s\nlog:\n%s", got, want, gitlab.Plain(r.Log))
	}
}

func wantEnd(t *testing.T, r gitlab.Result, status gitlab.Status, reason gitlab.Reason, code int) {
	t.Helper()
	if r.Status != status || r.Reason != reason || r.ExitCode != code {
		t.Errorf("ended as %s %s %d (%s), want %s %s %d\nlog:\n%s",
			r.Status, r.Reason, r.ExitCode, r.Message, status, reason, code, gitlab.Plain(r.Log))
	}
}

func wantLine(t *testing.T, text, line string) {
	t.Helper()
	for l := range strings.Lines(gitlab.Plain(text)) {
		if strings.TrimSuffix(l, "\n") == line {
			return
		}
	}
	t.Errorf("no line %q in:\n%s", line, gitlab.Plain(text))
}
