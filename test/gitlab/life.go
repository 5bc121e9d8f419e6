package gitlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// play is the job's life from beginning to end. When gitlab-runner dies, this
// goroutine ends wherever it is, and all that is undone stays undone.
func (r *Running) play() {
	defer close(r.done)
	defer r.abort() // frees the job's timer
	defer r.runnerLog.close()
	defer func() { r.result.Log = r.log.close() }()

	r.log.printf("Running with gitlab-runner %s (simulated)", r.runner.release())
	r.log.printf(cyan + `Preparing the "custom" executor`)
	t, err := r.prepare()
	if err == nil {
		err = r.run(t)
		r.cleanup(t)
	}
	r.conclude(err)
}

// conclude tells GitLab how the job ended.
func (r *Running) conclude(err error) {
	var f *failure
	switch {
	case err == nil:
		r.result.Status = Success
		r.log.printf(green + "Job succeeded")
		return
	case errors.Is(err, errCanceled):
		r.result.Status = Canceled
		r.log.printf(red + "ERROR: Job failed: canceled")
	case errors.As(err, &f):
		r.result.Status, r.result.Reason, r.result.ExitCode = Failed, f.reason, f.code
		r.log.printf(red+"ERROR: Job failed: %v", err)
	default:
		r.result.Status, r.result.Reason = Failed, SystemFailure
		r.log.printf(red+"ERROR: Job failed (system failure): %v", err)
	}
	r.result.Message = err.Error()
}

// A try is one attempt to prepare, and what it leaves for the stages behind.
// The next one knows nothing of it.
type try struct {
	number int
	dir    string // TMPDIR, fresh and gone after cleanup

	env                             map[string]string // config's job_env
	hostname, shell                 string
	buildsDir, cacheDir, projectDir string
	knowsExitCodeFile               bool
}

func (t *try) responseFile() string { return path.Join(t.dir, "response.json") }

// exitCodeFile is one for the whole try, or none for an old gitlab-runner.
func (t *try) exitCodeFile() string {
	if !t.knowsExitCodeFile {
		return ""
	}
	return path.Join(t.dir, "build_exit_code")
}

// tempDir is where File variables are kept in the machine.
func (t *try) tempDir() string {
	if t.projectDir == "" {
		return ""
	}
	return t.projectDir + ".tmp"
}

// prepare runs config and prepare. After a system failure it cleans up, waits,
// and tries again, twice; it waits after the last try, too.
func (r *Running) prepare() (*try, error) {
	const tries = 3
	for n := 1; ; n++ {
		t, err := r.tryPrepare(n)
		if err == nil {
			return t, nil
		}
		r.cleanup(t)
		if f := (*failure)(nil); errors.As(err, &f) {
			return nil, err
		}
		if r.over.Err() != nil {
			return nil, r.ended(r.over)
		}
		r.log.printf(red+"ERROR: Preparation failed: %v", err)
		r.log.printf("Will be retried in %v ...", r.runner.RetryPause)
		r.sleep(r.runner.RetryPause)
		if n == tries {
			return nil, err
		}
	}
}

// tryPrepare is one try. What it returns must be cleaned up even after an
// error.
func (r *Running) tryPrepare(number int) (*try, error) {
	driver := r.runner.Driver
	t := &try{number: number, shell: driver.Shell, knowsExitCodeFile: r.runner.Version >= 17}
	var err error
	if t.dir, err = os.MkdirTemp(r.runner.Dir, "custom-executor"); err != nil {
		return t, err
	}
	if err := r.writeResponse(t); err != nil {
		return t, err
	}

	var stdout strings.Builder
	if err := r.stage(r.over, t, "config", driver.Config, &stdout, r.log); err != nil {
		return t, err
	}
	said, err := parseAnswer([]byte(stdout.String()))
	if err != nil {
		return t, err
	}
	r.log.printf("Using Custom executor%s...", said.name())
	if err := r.place(t, said); err != nil {
		return t, err
	}
	return t, r.stage(r.over, t, "prepare", driver.Prepare, r.log, r.log)
}

// place finds out where the job's directories are in the machine.
func (r *Running) place(t *try, said answer) error {
	driver := r.runner.Driver
	t.env = said.JobEnv
	t.hostname = override("", said.Hostname)
	t.shell = override(t.shell, said.Shell)
	t.buildsDir = override(driver.BuildsDir, said.BuildsDir)
	t.cacheDir = override(driver.CacheDir, said.CacheDir)
	switch {
	case t.buildsDir == "":
		return &failure{reason: ConfigurationError, text: "the builds_dir is not configured"}
	case t.cacheDir == "":
		return &failure{reason: ConfigurationError, text: "the cache_dir is not configured"}
	case t.shell != "bash" && t.shell != "sh":
		return fmt.Errorf("shell %s: only scripts for bash and sh are simulated", t.shell)
	}
	shared := ""
	if override(false, said.BuildsDirIsShared) {
		shared = path.Join(shortToken, strconv.Itoa(r.job.ConcurrentProjectID))
	}
	t.projectDir = path.Join(t.buildsDir, shared, r.job.Project.Path)
	return nil
}

// shortToken is what gitlab-runner calls itself by in paths.
const shortToken = "simulator"

// stage runs config or prepare, within the job's time and its own.
func (r *Running) stage(ctx context.Context, t *try, name string, c Command, stdout, stderr io.Writer) error {
	if c.Exec == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return r.execute(ctx, t, &Process{Stage: name, Try: t.number, Args: c.argv()}, stdout, stderr)
}

// cleanup runs last, in any case, and nothing that happens to the job or to
// gitlab-runner shortens it, but death. What it prints is never seen in the
// job's log.
func (r *Running) cleanup(t *try) {
	if c := r.runner.Driver.Cleanup; c.Exec != "" {
		stdout := &lineWriter{sink: r.runnerLog, format: "DEBUG: %s cleanup_std=out\n"}
		stderr := &lineWriter{sink: r.runnerLog, format: "WARNING: %s cleanup_std=err\n"}
		err := r.stage(context.Background(), t, "cleanup", c, stdout, stderr)
		stdout.close()
		stderr.close()
		if err != nil {
			fmt.Fprintf(r.runnerLog, "WARNING: Cleanup script failed: %v\n", err)
		}
	}
	os.RemoveAll(t.dir) // as gitlab-runner: what cannot be removed stays
}

func (c Command) argv() []string { return append([]string{c.Exec}, c.Args...) }

// execute runs one process of the driver from its start to its end.
func (r *Running) execute(ctx context.Context, t *try, p *Process, stdout, stderr io.Writer) error {
	r.alive()
	p.Dir, p.Env = t.dir, r.environment(t)
	record := StageResult{ExitStatus: -1}
	err := spawn(p)
	if err != nil {
		err = fmt.Errorf("failed to start command: %w", err)
	} else {
		r.mu.Lock()
		r.process = p // before anybody hears what it says
		r.mu.Unlock()
		p.follow(stdout, stderr)
		if r.runner.OnStart != nil {
			r.runner.OnStart(r, p)
		}
		terminated, killed, left := r.await(ctx, p)
		if left {
			record.Pid, record.Elapsed = p.Pid, time.Since(p.started)
			err = errDormant
		} else {
			record = p.result
			err = t.judge(record)
		}
		record.Terminated, record.Killed, record.Left = terminated, killed, left
	}
	record.Stage, record.SubStage, record.Try = p.Stage, p.SubStage, p.Try
	if err != nil {
		record.Error = err.Error()
	}
	r.result.Stages = append(r.result.Stages, record)
	if r.dead.Err() != nil {
		p.hangUp()
	}
	r.alive()
	r.log.flush()
	if r.runner.OnEnd != nil {
		r.runner.OnEnd(r, record)
	}
	return err
}

// environment is the same in every stage but for what config had to say: of
// equal names the last one counts.
func (r *Running) environment(t *try) []string {
	env := append(os.Environ(), r.runner.Env...)
	set := func(key, value string) { env = append(env, key+"="+value) }
	set("TMPDIR", t.dir)
	set("BUILD_FAILURE_EXIT_CODE", "1")
	set("SYSTEM_FAILURE_EXIT_CODE", "2")
	if file := t.exitCodeFile(); file != "" {
		set("BUILD_EXIT_CODE_FILE", file)
	}
	set("JOB_RESPONSE_FILE", t.responseFile())
	for key, value := range t.env {
		set(key, value)
	}
	vs := r.variables(t)
	for _, v := range vs {
		set("CUSTOM_ENV_"+v.Key, v.Value)
	}
	set("CUSTOM_ENV_CI_JOB_SERVICES", r.services(vs))
	return env
}
