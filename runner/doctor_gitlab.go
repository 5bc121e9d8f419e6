package runner

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
)

// What the doctor asks of gitlab-runner.

// registration is where gitlab-runner keeps its configuration, as a service.
const registration = "/etc/gitlab-runner/config.toml"

func (h *Host) checkGitLabRunner(context.Context) []Finding {
	path := h.findHelper(nil)
	if path == "" {
		return isBad("install gitlab-runner, or set gitlab_runner to where it is", "there is no gitlab-runner in PATH: no jobs, no artifacts, no caches")
	}
	return isGood("%s", path)
}

// checkRegistration reads gitlab-runner's configuration: does a runner call this
// program, and as it wants to be called?
func (h *Host) checkRegistration(path string) []Finding {
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
	var allowed Permission
	for _, r := range known.Runners {
		if r.Executor != "custom" || !slices.ContainsFunc(r.Stages(), h.isCalledBy) {
			continue
		}
		ours++
		allowed = append(allowed, allowedBy(r)...)
		problems := h.checkRunner(r)
		if problems == nil {
			problems = isGood("%s: runner %q calls this program", path, r.Name)
		}
		all = append(all, problems...)
	}
	if ours == 0 {
		return isBad(paste, "%s: none of its %d runners has the executor \"custom\" and calls %s", path, len(known.Runners), h.Program)
	}
	all = append(all, h.checkAllowed(allowed)...)
	if known.Concurrent < 2 {
		all = append(all, isWarning("raise concurrent at its top", "%s: one job at a time, of all runners (concurrent)", path)...)
	}
	return all
}

// isCalledBy says whether a stage's command is this program, whatever the path.
func (h *Host) isCalledBy(stage gitlab.StageCommand) bool {
	theirs, err := os.Stat(stage.Exec)
	if err != nil {
		return false
	}
	program, err := os.Stat(h.Program)
	return err == nil && os.SameFile(theirs, program)
}

// checkRunner looks at the four commands of a runner that calls this program for
// one of them at least.
func (h *Host) checkRunner(r gitlab.Runner) []Finding {
	var all []Finding
	problem := func(state State, format string, args ...any) {
		all = append(all, Finding{State: state, Found: fmt.Sprintf("runner %q: ", r.Name) + fmt.Sprintf(format, args...), ToDo: "'nspawn-runner toml' prints how it should be"})
	}
	for _, stage := range r.Stages() {
		switch {
		case stage.Exec == "":
			problem(Bad, "%s_exec is missing", stage.Name)
		case !h.isCalledBy(stage):
			problem(Bad, "%s_exec is %s, not this program (%s)", stage.Name, stage.Exec, h.Program)
		case !slices.Contains(stage.Args, stage.Command):
			problem(Bad, "%s_args are %q, without %q", stage.Name, stage.Args, stage.Command)
		case configOf(stage.Args) != h.usedConfig():
			problem(Warning, "%s reads %s, and the doctor %s: give it the same --config", stage.Name, configOf(stage.Args), h.usedConfig())
		}
		// 0 is gitlab-runner's own limit: an hour.
		if least := h.leastTimeout(stage.Name); stage.Timeout > 0 && stage.Timeout < least {
			problem(Warning, "%s_exec_timeout is %s, and it may need %s", stage.Name, stage.Timeout, least)
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
func (h *Host) leastTimeout(stage string) time.Duration {
	switch stage {
	case "prepare":
		return h.Config.BootTimeout
	case "cleanup":
		return cleanupTimeout
	}
	return 10 * time.Second
}

// usedConfig is the configuration file that is read here.
func (h *Host) usedConfig() string {
	if h.configFile == "" {
		return config.DefaultFile
	}
	return h.configFile
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
func allowedBy(r gitlab.Runner) Permission {
	for _, stage := range r.Stages() {
		if stage.Command == "prepare" {
			return valuesOf(stage.Args, "--allow-image")
		}
	}
	return nil
}

// checkAllowed looks for images that no runner allows.
func (h *Host) checkAllowed(allowed Permission) []Finding {
	images, err := h.images().List()
	if err != nil {
		return nil // see checkImages
	}
	var all []Finding
	for _, i := range images {
		settings, err := h.imageConfig(i.Name)
		if err != nil || allowed.allows(i.Name) {
			continue // see checkPlaybooks
		}
		if given := h.gives(settings); given != nil {
			all = append(all, isWarning("add \"--allow-image="+i.Name+"\" to prepare_args of the runner that may have it",
				"image %s %s, and no runner allows that: its jobs are refused", i.Name, strings.Join(given, ", "))...)
		}
	}
	return all
}
