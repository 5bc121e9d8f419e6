package gitlab

import (
	"time"

	"github.com/BurntSushi/toml"
)

// Runners is what gitlab-runner's config.toml says, as far as it matters here.
type Runners struct {
	// Concurrent is how many jobs of all runners together run at a time.
	Concurrent int
	Runners    []Runner
}

// Runner is one [[runners]] block.
type Runner struct {
	Name, Executor string
	// GracefulKill is how long a stage that is told to stop may take, 0 for
	// gitlab-runner's ten minutes.
	GracefulKill time.Duration

	custom customTable
}

// customTable is the table [runners.custom]. Times are in seconds.
type customTable struct {
	ConfigExec         string   `toml:"config_exec"`
	ConfigArgs         []string `toml:"config_args"`
	ConfigExecTimeout  int64    `toml:"config_exec_timeout"`
	PrepareExec        string   `toml:"prepare_exec"`
	PrepareArgs        []string `toml:"prepare_args"`
	PrepareExecTimeout int64    `toml:"prepare_exec_timeout"`
	RunExec            string   `toml:"run_exec"`
	RunArgs            []string `toml:"run_args"`
	CleanupExec        string   `toml:"cleanup_exec"`
	CleanupArgs        []string `toml:"cleanup_args"`
	CleanupExecTimeout int64    `toml:"cleanup_exec_timeout"`
	GracefulKill       int64    `toml:"graceful_kill_timeout"`
}

// ParseRunners reads the content of config.toml. Errors name the line.
func ParseRunners(text []byte) (Runners, error) {
	var file struct {
		Concurrent int `toml:"concurrent"`
		Runners    []struct {
			Name     string      `toml:"name"`
			Executor string      `toml:"executor"`
			Custom   customTable `toml:"custom"`
		} `toml:"runners"`
	}
	if err := toml.Unmarshal(text, &file); err != nil {
		return Runners{}, err
	}
	all := Runners{Concurrent: file.Concurrent}
	for _, r := range file.Runners {
		all.Runners = append(all.Runners, Runner{r.Name, r.Executor, seconds(r.Custom.GracefulKill), r.Custom})
	}
	return all, nil
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// StageCommand is how a runner calls a stage.
type StageCommand struct {
	Name    string // gitlab-runner's: config, prepare, run, cleanup
	Command string // this program's command for it
	Exec    string
	Args    []string
	Timeout time.Duration // 0 for gitlab-runner's own
}

// Stages are the commands of a runner with the executor custom.
func (r Runner) Stages() []StageCommand {
	c := r.custom
	return []StageCommand{
		{"config", "gitlab-config", c.ConfigExec, c.ConfigArgs, seconds(c.ConfigExecTimeout)},
		{"prepare", "prepare", c.PrepareExec, c.PrepareArgs, seconds(c.PrepareExecTimeout)},
		{"run", "run", c.RunExec, c.RunArgs, 0},
		{"cleanup", "cleanup", c.CleanupExec, c.CleanupArgs, seconds(c.CleanupExecTimeout)},
	}
}
