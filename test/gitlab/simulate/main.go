// Command simulate plays one job as gitlab-runner would: it calls a
// custom-executor driver through all stages, shows the job's log, and then
// what each stage cost.
//
//	simulate --driver ./nspawn-runner JOB.yaml
//
// JOB.yaml holds the keys of one job in .gitlab-ci.yml (image, variables,
// script, artifacts, ...) and, if wanted, id, project, repository, ref,
// protected and timeout. With --job NAME it is a whole .gitlab-ci.yml, of which
// that job is played.
//
// The exit status is 0 when the job succeeded, 1 when that is the job's own
// fault, and 2 when the system failed. The command takes signals as
// gitlab-runner does: the first SIGINT or SIGTERM stops the job and cleans up,
// a second one, like SIGKILL, leaves everything as it is; SIGQUIT lets the job
// end.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"nspawn-runner/test/gitlab"
)

func main() {
	syscall.Umask(0o022) // as gitlab-runner's, and so the driver's
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	os.Exit(simulate(os.Args[1:], signals, os.Stdout, os.Stderr))
}

const systemFailure = 2

// simulate is the whole command but for the process around it.
func simulate(args []string, signals <-chan os.Signal, stdout, stderr *os.File) int {
	opts, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = opts.load()
	}
	if err != nil {
		fmt.Fprintln(stderr, "simulate:", err)
		return systemFailure
	}

	colour := term.IsTerminal(int(stdout.Fd()))
	opts.runner.RunnerLog = stderr
	switch {
	case opts.json: // the log is part of the result
	case colour:
		opts.runner.Log = stdout
	default:
		opts.runner.OnLine = func(_ *gitlab.Running, line string) { fmt.Fprintln(stdout, line) }
	}
	job, err := opts.runner.Start(opts.job)
	if err != nil {
		fmt.Fprintln(stderr, "simulate:", err)
		return systemFailure
	}
	go func() {
		for s := range signals {
			if s != syscall.SIGQUIT {
				job.Stop()
			}
		}
	}()
	result := job.Wait()

	if opts.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(result)
	} else {
		err = report(stdout, result, colour)
	}
	if err != nil {
		fmt.Fprintln(stderr, "simulate: report:", err)
		return systemFailure
	}
	return exitCode(result)
}

// exitCode says whose fault it was.
func exitCode(result gitlab.Result) int {
	switch {
	case result.Status == gitlab.Success:
		return 0
	case result.Status == gitlab.Abandoned, result.Reason == gitlab.SystemFailure:
		return systemFailure
	}
	return 1
}

// options are the command line, and what follows from it.
type options struct {
	file       string
	jobName    string
	repository string
	variables  []gitlab.Variable
	json       bool
	runner     gitlab.Runner
	job        gitlab.Job
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	var global []string
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: simulate [flags] JOB.yaml\n\nPlays one job with a custom-executor driver, as gitlab-runner would.\n\nFlags:")
		flags.PrintDefaults()
	}
	driver := flags.String("driver", "nspawn-runner", "the driver's `program`")
	flags.Func("config", "a configuration `file`, given to the driver as --config in every stage; repeatable", func(file string) error {
		file, err := filepath.Abs(file) // the driver runs elsewhere
		global = append(global, "--config", file)
		return err
	})
	flags.Func("driver-arg", "an `argument` for the driver, before those of the stage; repeatable", func(arg string) error {
		global = append(global, arg)
		return nil
	})
	stages := []struct {
		name, args string
		command    *gitlab.Command
	}{
		{"config", "gitlab-config", &o.runner.Driver.Config},
		{"prepare", "prepare", &o.runner.Driver.Prepare},
		{"run", "run", &o.runner.Driver.Run},
		{"cleanup", "cleanup", &o.runner.Driver.Cleanup},
	}
	for i, s := range stages {
		flags.StringVar(&stages[i].args, s.name+"-args", s.args, "`arguments` of the stage "+s.name+", separated by blanks")
	}
	timeout := flags.Duration("stage-timeout", 200*time.Second, "`time` for each of config, prepare and cleanup")
	flags.DurationVar(&o.runner.Driver.GracefulKillTimeout, "graceful-kill-timeout", 200*time.Second, "`time` from SIGTERM to SIGKILL")
	flags.DurationVar(&o.runner.Driver.ForceKillTimeout, "force-kill-timeout", 10*time.Second, "`time` from SIGKILL to giving up")
	flags.StringVar(&o.runner.Driver.BuildsDir, "builds-dir", "/builds", "`directory` for builds in the machine, unless the driver says another")
	flags.StringVar(&o.runner.Driver.CacheDir, "cache-dir", "/cache", "`directory` for caches in the machine, unless the driver says another")
	flags.IntVar(&o.runner.Version, "runner-version", 19, "the gitlab-runner to be: 15, 17 or 19")
	flags.StringVar(&o.jobName, "job", "", "the `name` of a job: the file is a .gitlab-ci.yml")
	flags.StringVar(&o.repository, "repository", "", "the `URL` that the job's sources are fetched from, instead of the file's")
	variable := func(name, usage string, file bool) {
		flags.Func(name, usage, func(text string) error {
			key, value, found := strings.Cut(text, "=")
			if !found {
				return errors.New("want KEY=VALUE")
			}
			o.variables = append(o.variables, gitlab.Variable{Key: key, Value: value, File: file, Raw: true})
			return nil
		})
	}
	variable("variable", "`KEY=VALUE`, a variable of the project, which wins over the file's; repeatable", false)
	variable("file-variable", "`KEY=CONTENT`, the same as a file; repeatable", true)
	flags.BoolVar(&o.json, "json", false, "print the result as JSON and nothing else")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 {
		return nil, errors.New("arguments: want one job file; see --help")
	}
	o.file = flags.Arg(0)
	program, err := exec.LookPath(*driver)
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return nil, fmt.Errorf("driver: %w", err)
	}
	for _, s := range stages {
		s.command.Exec, s.command.Timeout = program, *timeout
		s.command.Args = append(append([]string{}, global...), strings.Fields(s.args)...)
	}
	o.runner.Driver.Run.Timeout = 0
	return o, nil
}

// load reads the job file.
func (o *options) load() error {
	text, err := os.ReadFile(o.file)
	if err != nil {
		return err
	}
	if o.jobName != "" {
		o.job, err = gitlab.ParsePipelineJob(text, o.jobName)
	} else {
		o.job, err = gitlab.ParseJob(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.file, err)
	}
	o.job.Git.URL = cmp.Or(o.repository, o.job.Git.URL)
	o.job.Variables = append(o.job.Variables, o.variables...)
	return nil
}
