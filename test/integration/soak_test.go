package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

const (
	// soakJobs are how many there are on each backend unless NSPAWN_RUNNER_JOBS says:
	// a hundred in all.
	soakJobs = 34
	// soakWidth is how many there are at a time.
	soakWidth = 10
	// jobLimit is when a job of them is stuck, whatever befell it.
	jobLimit = 2 * time.Minute
)

// plan is what a soak does to one of its jobs.
type plan struct {
	ending ending
	stage  string        // in which it is disturbed
	age    time.Duration // of the stage then
	code   int           // of a script that fails
	// services is how many the job has.
	services int
}

func (p plan) String() string {
	return fmt.Sprintf("%s, %s after %v, code %d, %d services", p.ending.name, p.stage, p.age, p.code, p.services)
}

// ending is a way in which a job ends, or is ended.
type ending struct {
	name string
	// weight is how often it is drawn, compared with the others.
	weight int
	// play plays a job that ends so, and looks whether it did.
	play func(s *soak, p plan)
}

var endings = []ending{
	{"success", 6, (*soak).succeeds},
	{"failure", 3, (*soak).fails},
	{"cancel", 2, (*soak).isCanceled},
	{"timeout", 2, (*soak).timesOut},
	{"killed driver", 3, (*soak).losesItsDriver},
	{"power off", 1, (*soak).powersOff},
	{"killed nspawn", 1, loses(killNspawn)},
	{"killed init", 1, loses(killInit)},
	{"killed pasta", 1, loses(killPasta)},
	{"killed gitlab-runner", 2, (*soak).losesItsGitlabRunner},
}

// soak plays many jobs at a time on a host.
type soak struct {
	*host
	t *testing.T
}

// draw draws what is done to a number of jobs.
func draw(random *rand.Rand, number int) []plan {
	var lots []ending
	for _, e := range endings {
		lots = append(lots, slices.Repeat([]ending{e}, e.weight)...)
	}
	plans := make([]plan, number)
	for i := range plans {
		within := []time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second}[random.IntN(3)]
		plans[i] = plan{
			ending: lots[random.IntN(len(lots))],
			stage:  everyStage[random.IntN(len(everyStage))],
			age:    time.Duration(random.Int64N(int64(within))).Truncate(10 * time.Microsecond),
			code:   1 + random.IntN(255),
		}
		if random.IntN(5) == 0 {
			plans[i].services = 1 + random.IntN(2)
		}
	}
	return plans
}

// play plays jobs, soakWidth at a time, with gc in a loop beside them.
func (s *soak) play(plans []plan) {
	var over atomic.Bool
	var collector, workers sync.WaitGroup
	collector.Go(func() {
		for !over.Load() {
			s.drives(s.t, "gc")
		}
	})
	room := make(chan struct{}, soakWidth)
	for _, p := range plans {
		room <- struct{}{}
		workers.Go(func() {
			defer func() { <-room }()
			start := time.Now()
			p.ending.play(s, p)
			if took := time.Since(start); took > jobLimit {
				s.t.Errorf("%v: it was stuck: %v", p, took)
			}
		})
	}
	workers.Wait()
	over.Store(true)
	collector.Wait()
}

// plays plays one job, and looks at what holds however it ends: it comes to an end,
// and so does its cleanup.
func (s *soak) plays(p plan, runner gitlab.Runner, job gitlab.Job) gitlab.Result {
	ctx, cancel := context.WithTimeout(s.t.Context(), jobLimit)
	defer cancel()
	runner.Dir = s.t.TempDir()
	for i := range p.services {
		job.Services = append(job.Services, gitlab.Image{Name: "any:1", Alias: fmt.Sprint("service", i)})
	}
	result, err := runner.Run(ctx, job)
	must(s.t, err)
	if c := result.Last("cleanup"); c == nil || c.ExitStatus != 0 && c.Signal == 0 {
		s.t.Errorf("%v: cleanup: %+v: %s", p, c, result.Log)
	}
	return result
}

// ends looks whether a job ended in one of some ways: a status, a reason of failure.
func (s *soak) ends(p plan, r gitlab.Result, ways ...string) {
	if !slices.Contains(ways, string(r.Status)) && !slices.Contains(ways, string(r.Reason)) {
		s.t.Errorf("%v: %s %s: %s", p, r.Status, r.Reason, r.Log)
	}
}

const (
	success       = string(gitlab.Success)
	wasCanceled   = string(gitlab.Canceled)
	timeout       = string(gitlab.Timeout)
	systemFailure = string(gitlab.SystemFailure)
)

func (s *soak) succeeds(p plan) {
	job := stopJob()
	job.Script = []string{"systemctl is-system-running", "echo $CI_JOB_ID > /root/mine; sleep 0.1; test $(cat /root/mine) = " + fmt.Sprint(job.ID)}
	s.ends(p, s.plays(p, s.runner(), job), success)
}

func (s *soak) fails(p plan) {
	job := stopJob()
	job.Script = []string{fmt.Sprintf("exit %d", p.code)}
	r := s.plays(p, s.runner(), job)
	if r.Reason != gitlab.ScriptFailure || r.ExitCode != p.code {
		s.t.Errorf("%v: %s %s %d: %s", p, r.Status, r.Reason, r.ExitCode, r.Log)
	}
}

// at is a gitlab-runner at whose job something is done in a stage, or sub-stage,
// when it is that old.
func (s *soak) at(p plan, do func(*gitlab.Running, *gitlab.Process)) gitlab.Runner {
	runner := s.runner()
	runner.OnStart = func(job *gitlab.Running, process *gitlab.Process) {
		if (process.Stage == p.stage || process.SubStage == p.stage) && process.Try == 1 {
			time.AfterFunc(p.age, func() { do(job, process) })
		}
	}
	return runner
}

func (s *soak) isCanceled(p plan) {
	r := s.plays(p, s.at(p, func(job *gitlab.Running, _ *gitlab.Process) { job.Cancel() }), stopJob())
	s.ends(p, r, wasCanceled, success) // it may come too late
}

func (s *soak) timesOut(p plan) {
	job := stopJob()
	job.Script, job.Timeout = []string{"sleep 1000"}, 100*time.Millisecond+4*p.age
	s.ends(p, s.plays(p, s.runner(), job), timeout)
}

// losesItsDriver is a job whose driver is killed, in a stage that says what becomes
// of the job. All else of it goes well.
func (s *soak) losesItsDriver(p plan) {
	job := stopJob()
	r := s.plays(p, s.at(p, func(_ *gitlab.Running, process *gitlab.Process) {
		select {
		case <-process.Done():
		default:
			_ = process.SignalGroup(syscall.SIGKILL)
		}
	}), job)
	want := success
	for _, stage := range r.Stages {
		switch {
		case stage.Signal == 0 && stage.ExitStatus != 0:
			s.t.Errorf("%v: %+v: %s", p, stage, r.Log)
		case stage.Signal != 0 && slices.Contains([]string{"prepare_script", "get_sources", "build_script"}, stage.Name()):
			want = systemFailure
		}
	}
	s.ends(p, r, want)
	if p.stage == "cleanup" {
		s.drives(s.t, "cleanup", "--id", fmt.Sprint(job.ID)) // nobody else calls it again
	}
}

func (s *soak) powersOff(p plan) {
	job := stopJob()
	how := []string{"systemctl poweroff", "systemctl reboot", "systemctl poweroff --force --force"}[p.code%3]
	job.Script = []string{how + "; sleep 100"}
	s.ends(p, s.plays(p, s.runner(), job), systemFailure)
}

// loses is a job whose machine loses a part.
func loses(command string) func(*soak, plan) {
	return func(s *soak, p plan) {
		job := stopJob()
		var killed atomic.Bool
		r := s.plays(p, s.at(p, func(*gitlab.Running, *gitlab.Process) { killed.Store(lose(command, job.ID)) }), job)
		if killed.Load() {
			s.ends(p, r, success, systemFailure) // prepare is tried again, after_script is not missed
		} else {
			s.ends(p, r, success)
		}
	}
}

// losesItsGitlabRunner is a job whose gitlab-runner is killed with its process group,
// in which no driver is. Nobody calls cleanup: its machine goes with gc.
func (s *soak) losesItsGitlabRunner(p plan) {
	id := newID()
	dir := s.t.TempDir()
	script := []string{"sleep 1000", "true"}[p.code%2]
	must(s.t, os.WriteFile(filepath.Join(dir, "job.yaml"), []byte("id: "+id+"\nimage: bookworm\nscript: ["+script+"]\n"), 0o600))
	runner := exec.Command(os.Getenv("NSPAWN_RUNNER_SIMULATE"), "--driver", s.driver, "--config", s.config, filepath.Join(dir, "job.yaml"))
	runner.Env = append(os.Environ(), "TMPDIR="+dir)
	runner.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(s.t, runner.Start())
	time.Sleep(2 * p.age) // the moment is the point
	must(s.t, syscall.Kill(-runner.Process.Pid, syscall.SIGKILL))
	_ = runner.Wait()
	await(s.t, "the driver of a dead gitlab-runner to end, and its machine", func() bool {
		_, err := os.Lstat(filepath.Join(s.state, ".machines", id))
		return err != nil && !works(dir)
	})
}

// works says whether a process works in a directory, as drivers do in their job's.
func works(dir string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	return slices.ContainsFunc(all, func(link string) bool {
		at, err := os.Readlink(link)
		return err == nil && strings.HasPrefix(at, dir+"/")
	})
}

func TestManyJobsOfAllEndsBesideAGarbageCollectorLeaveTheHostAsItWas(t *testing.T) {
	needLab(t)
	number, err := strconv.Atoi(os.Getenv("NSPAWN_RUNNER_JOBS"))
	if err != nil {
		number = soakJobs
	}
	seed, err := strconv.ParseUint(os.Getenv("NSPAWN_RUNNER_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64N(1e6)
	}
	allowManyMachines(t)
	onEach(t, func(t *testing.T, h *host) {
		if h.backend == "btrfs" {
			quotas(t, h.state, true)
			defer quotas(t, h.state, false)
		}
		h.configure(t, "disk_max: 200M\nservices: {'any:*': bookworm}\n")
		defer h.configure(t, "")
		fmt.Printf("soak: %d jobs on %s, those of SEED=%d\n", number, h.backend, seed)
		s := &soak{host: h, t: t}
		random := rand.New(rand.NewPCG(seed, 0))
		s.play(draw(random, soakWidth)) // what a daemon needs once is no leak
		h.collectNameless(t)
		h.checkNothingLeft(t)
		before, start := h.burden(t), time.Now()
		s.play(draw(random, number))
		took := time.Since(start)
		h.collectNameless(t)
		h.checkNothingLeft(t)
		costs := h.checkBurden(t, before, number)
		fmt.Printf("soak: %s: %.2f s a job; %s\n", h.backend, took.Seconds()/float64(number), costs)
	})
}
