package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/job"
)

// What the doctor asks of gitlab-runner.

// registration is where gitlab-runner keeps its configuration, as a service.
const registration = "/etc/gitlab-runner/config.toml"

func (d Doctor) checkGitLabRunner(context.Context) []Finding {
	path := d.Jobs.FindHelper(nil)
	if path == "" {
		return isBad("install gitlab-runner, or set gitlab_runner to its path", "gitlab-runner is not in PATH: no jobs run, and artifacts and caches do not work")
	}
	return isGood("%s", path)
}

// checkRegistration reads gitlab-runner's configuration: does a runner call this
// program, and as it wants to be called?
func (d Doctor) checkRegistration(path string) []Finding {
	const paste = "'nspawn-runner toml' prints the block to put there"
	text, err := os.ReadFile(path)
	if err != nil {
		return isBad(paste, "%v", err)
	}
	known, err := gitlab.ParseRunners(text)
	if err != nil {
		return isBad("correct it", "%s: %v", path, err)
	}
	var all []Finding
	ours := 0
	var allowed job.Permission
	for _, r := range known.Runners {
		if r.Executor != "custom" || !slices.ContainsFunc(r.Stages(), d.meansThis) {
			continue
		}
		ours++
		allowed = append(allowed, allowedBy(r)...)
		problems := d.checkRunner(r)
		if problems == nil {
			problems = isGood("%s: runner %q calls this program", path, r.Name)
		}
		all = append(all, problems...)
	}
	if ours == 0 {
		return isBad(paste, "%s: no runner has the executor \"custom\" and calls %s", path, d.Jobs.Program)
	}
	all = append(all, d.checkAllowed(allowed)...)
	if known.Concurrent < 2 {
		all = append(all, isWarning("raise concurrent at the top of the file", "%s: only one job of all runners runs at a time (concurrent)", path)...)
	}
	return all
}

// isCalledBy says whether a stage's command is this program, whatever the path.
func (d Doctor) isCalledBy(stage gitlab.StageCommand) bool {
	theirs, err := os.Stat(stage.Exec)
	if err != nil {
		return false
	}
	program, err := os.Stat(d.Jobs.Program)
	return err == nil && os.SameFile(theirs, program)
}

// meansThis says whether a stage's command is this program, or another of its name: a
// second installation, or one that is gone.
func (d Doctor) meansThis(stage gitlab.StageCommand) bool {
	return d.isCalledBy(stage) || filepath.Base(stage.Exec) == "nspawn-runner"
}

// checkRunner looks at the four commands of a runner that calls this program for
// one of them at least.
func (d Doctor) checkRunner(r gitlab.Runner) []Finding {
	var all []Finding
	problem := func(state State, format string, args ...any) {
		all = append(all, Finding{State: state, Found: fmt.Sprintf("runner %q: ", r.Name) + fmt.Sprintf(format, args...), ToDo: "'nspawn-runner toml' prints the correct block"})
	}
	for _, stage := range r.Stages() {
		switch {
		case stage.Exec == "":
			problem(Bad, "%s_exec is missing", stage.Name)
		case !d.isCalledBy(stage):
			problem(Bad, "%s_exec is %s, not this program (%s)", stage.Name, stage.Exec, d.Jobs.Program)
		case !slices.Contains(stage.Args, stage.Command):
			problem(Bad, "%s_args are %q, without %q", stage.Name, stage.Args, stage.Command)
		case configOf(stage.Args) != d.usedConfig():
			problem(Warning, "%s reads the configuration %s, the doctor reads %s: use the same --config", stage.Name, configOf(stage.Args), d.usedConfig())
		}
		// 0 is gitlab-runner's own limit: an hour.
		if least := d.leastTimeout(stage.Name); stage.Timeout > 0 && stage.Timeout < least {
			problem(Warning, "%s_exec_timeout is %s, but the stage may need %s", stage.Name, stage.Timeout, least)
		}
	}
	if r.GracefulKill > 0 && r.GracefulKill < leastGrace {
		problem(Warning, "graceful_kill_timeout is %s: a stage needs up to %s to stop a script", r.GracefulKill, leastGrace)
	}
	return all
}

// leastGrace is what run needs for a script that ignores SIGTERM, which systemd
// gives five seconds.
const leastGrace = 10 * time.Second

// leastTimeout is how long a stage can take when all is well.
func (d Doctor) leastTimeout(stage string) time.Duration {
	switch stage {
	case "prepare":
		return d.Jobs.Config.BootTimeout
	case "cleanup":
		return job.CleanupTimeout
	}
	return 10 * time.Second
}

// usedConfig is the configuration file that is read here.
func (d Doctor) usedConfig() string {
	if d.Jobs.ConfigFile == "" {
		return config.DefaultFile
	}
	return d.Jobs.ConfigFile
}

// configOf is the configuration file that arguments name.
func configOf(args []string) string {
	return append(valuesOf(args, "--config"), config.DefaultFile)[0]
}

// valuesOf are the values of a flag in arguments, which has some.
func valuesOf(args []string, flag string) []string {
	var all []string
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, flag+"="); ok {
			all = append(all, value)
		}
		if arg == flag && i+1 < len(args) {
			all = append(all, args[i+1])
		}
	}
	return all
}

// allowedBy is which images a runner allows that give jobs more than others.
func allowedBy(r gitlab.Runner) job.Permission {
	for _, stage := range r.Stages() {
		if stage.Command == "prepare" {
			return valuesOf(stage.Args, "--allow-image")
		}
	}
	return nil
}

// checkAllowed looks for images that no runner allows.
func (d Doctor) checkAllowed(allowed job.Permission) []Finding {
	images, err := d.Jobs.Images.List()
	if err != nil {
		return nil // see checkImages
	}
	var all []Finding
	for _, i := range images {
		settings, err := d.Jobs.Settings(i.Name)
		if err != nil || allowed.Allows(i.Name) {
			continue // see checkPlaybooks
		}
		if given := d.Jobs.Gives(settings); given != nil {
			all = append(all, isWarning("add \"--allow-image="+i.Name+"\" to prepare_args of the runner that may have it",
				"image %s %s, and no runner allows that: its jobs are refused", i.Name, strings.Join(given, ", "))...)
		}
	}
	return all
}
