package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// driver is a toy: it runs scripts here, in the test's directory, if the test
// gave it one by --home.
const driver = `#!/bin/sh
test "$1" = --home || exit 2
home=$2; shift 2
case $1 in
gitlab-config) echo '{"driver": {"name": "toy", "version": "'"$2"'"}}' ;;
prepare) ;;
fail) exit 2 ;;
run) bash "$2"; code=$?; test $code = 0 || { echo $code > "$BUILD_EXIT_CODE_FILE"; exit 1; } ;;
cleanup) touch "$home/clean" ;;
esac`

// TestMain lets a test run the command as a process that can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("SIMULATE") != "" {
		main()
	}
	os.Exit(m.Run())
}

// prepare writes the driver and a job file, and returns the command line.
func prepare(t *testing.T, job string) (home string, args []string) {
	t.Helper()
	home = t.TempDir()
	for name, text := range map[string]string{"driver": driver, "job.yaml": job} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home, []string{
		"--driver", "/bin/sh", "--driver-arg", filepath.Join(home, "driver"), "--driver-arg", "--home", "--driver-arg", home,
		"--builds-dir", filepath.Join(home, "builds"), "--cache-dir", filepath.Join(home, "cache"),
		filepath.Join(home, "job.yaml"),
	}
}

// run runs the command in this process.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	var files [2]*os.File
	for i := range files {
		file, err := os.Create(filepath.Join(dir, string(rune('1'+i))))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files[i] = file
	}
	code = simulate(args, nil, files[0], files[1])
	var text [2]string
	for i, file := range files {
		content, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		text[i] = string(content)
	}
	return code, text[0], text[1]
}

func TestAGoodJobShowsItsLogAndItsCost(t *testing.T) {
	_, args := prepare(t, "script: [echo hello]\nproject: demo/hello")
	code, stdout, stderr := run(t, append([]string{"--config-args", "gitlab-config 1.2"}, args...)...)
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %s", code, stderr)
	}
	for _, want := range []string{
		"Using Custom executor with driver toy 1.2...\n", "\n$ echo hello\nhello\n", "\nJob succeeded\n\nSTAGE ",
		"\nprepare ", "\nrun      build_script ", "\ncleanup ", "\njob succeeded in ", ", 7 calls of the driver; ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "\x1b") || strings.Contains(stdout, " \n") {
		t.Errorf("colours without a terminal, or blanks at a line's end:\n%q", stdout)
	}
}

func TestAJobOfAPipelineIsPlayedWithTheProjectsVariablesAndSources(t *testing.T) {
	_, args := prepare(t, "one: {script: [exit 1]}\ntwo:\n  variables: {PLACE: file}\n  script: ['echo $PLACE, $(cat $SECRET), $(git log --format=%s)']")
	repository := t.TempDir()
	for _, command := range [][]string{{"init", "-q", "-b", "main"}, {"-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "first"}} {
		if out, err := exec.Command("git", append([]string{"-C", repository}, command...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	code, stdout, stderr := run(t, append([]string{"--job", "two", "--repository", repository,
		"--variable", "PLACE=project", "--file-variable", "SECRET=a=$b"}, args...)...)
	if code != 0 || !strings.Contains(stdout, "\nproject, a=$b, first\n") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

func TestTheExitStatusSaysWhoseFaultItWas(t *testing.T) {
	t.Run("the job's", func(t *testing.T) {
		_, args := prepare(t, "script: [exit 42]")
		code, stdout, _ := run(t, args...)
		if code != 1 || !strings.Contains(stdout, "\njob failed: script failure, exit code 42 in ") {
			t.Errorf("exit %d\n%s", code, stdout)
		}
	})
	t.Run("the system's", func(t *testing.T) {
		_, args := prepare(t, "script: [true]")
		code, stdout, _ := run(t, append([]string{"--run-args", "fail"}, args...)...)
		if code != 2 || !strings.Contains(stdout, "\njob failed: runner system failure in ") {
			t.Errorf("exit %d\n%s", code, stdout)
		}
	})
	t.Run("the caller's", func(t *testing.T) {
		code, _, stderr := run(t, "--driver", "/bin/sh", "/does/not/exist.yaml")
		if code != 2 || !strings.HasPrefix(stderr, "simulate: open /does/not/exist.yaml") {
			t.Errorf("exit %d: %s", code, stderr)
		}
		_, args := prepare(t, "script: [true]")
		code, _, stderr = run(t, append([]string{"--runner-version", "3"}, args...)...)
		if code != 2 || !strings.Contains(stderr, "version 3") {
			t.Errorf("exit %d: %s", code, stderr)
		}
		code, _, stderr = run(t, append(args, "another.yaml")...)
		if code != 2 || !strings.Contains(stderr, "want one job file") {
			t.Errorf("exit %d: %s", code, stderr)
		}
		code, _, stderr = run(t, "--driver", "/does/not/exist", "job.yaml")
		if code != 2 || !strings.HasPrefix(stderr, "simulate: driver: ") {
			t.Errorf("exit %d: %s", code, stderr)
		}
		if code, _, stderr = run(t, "--help"); code != 0 || !strings.Contains(stderr, "Usage: simulate") {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})
}

func TestTheResultCanBeJSON(t *testing.T) {
	_, args := prepare(t, "script: [echo hello]")
	code, stdout, _ := run(t, append([]string{"--json"}, args...)...)
	var result gitlab.Result
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || code != 0 {
		t.Fatalf("exit %d, %v:\n%s", code, err, stdout)
	}
	if result.Status != gitlab.Success || len(result.Stages) != 7 || !strings.Contains(result.Log, "\nhello\n") {
		t.Errorf("%+v", result)
	}
}

// The driver runs in a directory of its own: no path may depend on this one.
func TestConfigurationFilesComeBeforeTheStage(t *testing.T) {
	home, _ := prepare(t, "")
	t.Chdir(home)
	if err := os.Chmod("driver", 0o700); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--driver", "./driver", "--config", "a", "--driver-arg", "-v", "--config", "/b", "job.yaml"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(o.runner.Driver.Prepare.Args, " "); got != "--config "+home+"/a -v --config /b prepare" {
		t.Error(got)
	}
	if o.runner.Driver.Run.Exec != home+"/driver" || o.runner.Driver.Cleanup.Timeout != 200*time.Second {
		t.Errorf("%+v", o.runner.Driver)
	}
}

// As gitlab-runner: the first signal cleans up, the last one cannot.
func TestSignalsDoWhatTheyDoToGitLabRunner(t *testing.T) {
	for signal, want := range map[syscall.Signal]struct {
		code  int
		clean bool
	}{syscall.SIGTERM: {2, true}, syscall.SIGINT: {2, true}, syscall.SIGQUIT: {0, true}, syscall.SIGKILL: {-1, false}} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			home, args := prepare(t, "script:\n  - touch "+"$HOME/ready; for i in $(seq 500); do test -e $HOME/go && break; sleep 0.02; done")
			command := exec.Command(os.Args[0], args...)
			command.Env = append(os.Environ(), "SIMULATE=yes", "HOME="+home, "TMPDIR="+home, "GORACE=atexit_sleep_ms=0")
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			for !exists(home + "/ready") {
				time.Sleep(5 * time.Millisecond)
			}
			command.Process.Signal(signal)
			if signal == syscall.SIGQUIT {
				os.WriteFile(home+"/go", nil, 0o600)
			}
			command.Wait()
			if code := command.ProcessState.ExitCode(); code != want.code || exists(home+"/clean") != want.clean {
				t.Errorf("exit %d, cleaned up: %v", code, exists(home+"/clean"))
			}
			os.WriteFile(home+"/go", nil, 0o600) // for a driver that was left
		})
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
