package gitlab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// inBash is a driver that runs the scripts here, in the test's directory.
func inBash(t *testing.T) *fake {
	f := newFake(t, map[string][]act{})
	f.Env = append(f.Env, "FAKE_SCRIPTS=yes")
	return f
}

// withRunnerProgram puts a program gitlab-runner into the machine's PATH.
func (f *fake) withRunnerProgram() {
	exe, err := os.Executable()
	must(err)
	bin := filepath.Join(f.dir, "bin")
	must(os.Mkdir(bin, 0o700))
	must(os.Symlink(exe, filepath.Join(bin, "gitlab-runner")))
	f.Env = append(f.Env, "PATH="+bin+":"+os.Getenv("PATH"))
}

func TestAScriptHasTheFormOfGitLabs(t *testing.T) {
	t.Parallel()
	for version, trap := range map[int]string{15: "trap exit 1 TERM\n", 17: "trap exit 1 TERM\n", 19: "trap 'exit 1' TERM\n"} {
		t.Run(trap, func(t *testing.T) {
			f := newFake(t, map[string][]act{"build_script": nil})
			f.Version = version
			f.play(gitlab.Job{Script: []string{"echo 'hi'"}})
			script := f.lastCall("build_script").Script
			for _, want := range []string{"#!/usr/bin/env bash\n", trap, "set -o pipefail", "set -o errexit", "(eval $'", `echo \'hi\'\n`, ") < /dev/null\nexit 0\n"} {
				if !strings.Contains(script, want) {
					t.Errorf("no %q in\n%s", want, script)
				}
			}
		})
	}
}

func TestTheScriptRunsInTheProjectWithTheJobsVariables(t *testing.T) {
	f := inBash(t)
	tricky := "quotes ' \" \\ $HOME `date` \t\n\x01 ünïcode"
	r := f.play(gitlab.Job{
		Variables: []gitlab.Variable{
			{Key: "TRICKY", Value: tricky, Raw: true},
			{Key: "CONFIG", Value: tricky, Raw: true, File: true},
			{Key: "CI_JOB_ID", Value: "mine"},
		},
		BeforeScript: []string{"pwd", "moved=yes"},
		Script: []string{
			`printf '%s' "$TRICKY" | cmp - "$CONFIG" && echo same`,
			`echo "$CONFIG"`, `echo "moved $moved, id $CI_JOB_ID"`, "",
			"echo first\necho second", `read -r line || echo "end of file"`,
		},
		AfterScript: []string{`test -z "$moved" && echo "after $CI_JOB_STATUS"`},
	})
	project := f.Driver.BuildsDir + "/group/project"
	wantEnd(t, r, gitlab.Success, "", 0)
	for _, line := range []string{project, "same", project + ".tmp/CONFIG", "moved yes, id mine", "first", "second",
		"$ echo first # collapsed multi-line command", "$ pwd", "end of file", "Running after script...", "after success"} {
		wantLine(t, r.Log, line)
	}
	host, _ := os.Hostname()
	wantLine(t, r.Log, "Running on "+host+"...")
	if _, err := os.Stat(project + ".tmp"); err == nil {
		t.Error("cleanup_file_variables left PROJECT.tmp")
	}
}

func TestAFailingLineEndsTheScriptWithItsCode(t *testing.T) {
	t.Parallel()
	for line, code := range map[string]int{"exit 42": 42, "false | true": 1, "(exit 3)": 3, "does-not-exist": 127, "kill -9 $BASHPID": 137} {
		t.Run(line, func(t *testing.T) {
			r := inBash(t).play(gitlab.Job{Script: []string{line, "echo not reached"}})
			wantEnd(t, r, gitlab.Failed, gitlab.ScriptFailure, code)
			if strings.Contains(r.Log, "\nnot reached") {
				t.Error("the script went on")
			}
		})
	}
}

func TestSourcesAreFetched(t *testing.T) {
	t.Parallel()
	repository := filepath.Join(t.TempDir(), "r.git")
	for _, args := range [][]string{
		{"init", "-q", "-b", "trunk", repository},
		{"-C", repository, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "--allow-empty", "-m", "one"},
		{"-C", repository, "tag", "v1"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	for name, c := range map[string]struct {
		git      gitlab.Git
		strategy string
		want     string
	}{
		"a branch":            {gitlab.Git{Ref: "trunk", Depth: 1}, "", "one"},
		"a tag, cloned":       {gitlab.Git{Ref: "v1", RefType: "tag"}, "clone", "one"},
		"nothing":             {gitlab.Git{Ref: "trunk"}, "none", ""},
		"an empty directory":  {gitlab.Git{Ref: "trunk"}, "empty", ""},
		"an unknown strategy": {gitlab.Git{Ref: "trunk"}, "magic", "system failure"},
	} {
		t.Run(name, func(t *testing.T) {
			f := inBash(t)
			c.git.URL = "file://" + repository
			r := f.play(gitlab.Job{
				Git: c.git, Variables: []gitlab.Variable{{Key: "GIT_STRATEGY", Value: c.strategy}},
				Script: []string{`echo "commit: $(git log --format=%s 2>/dev/null || :)"`},
			})
			if c.want == "system failure" {
				wantEnd(t, r, gitlab.Failed, gitlab.SystemFailure, 0)
				return
			}
			wantLine(t, r.Log, "commit: "+c.want)
		})
	}
}

func TestAJobOnTheSameProjectFetchesAgain(t *testing.T) {
	f := inBash(t)
	f.plan["get_sources"] = []act{{Exit: 1}, {Script: true}}
	r := f.play(gitlab.Job{Variables: []gitlab.Variable{{Key: "GET_SOURCES_ATTEMPTS", Value: "2"}}})
	wantEnd(t, r, gitlab.Success, "", 0)
	wantLine(t, r.Log, "Deleting tracked and untracked files...")
}

func TestTheCacheIsReachedByARelativePath(t *testing.T) {
	f := inBash(t)
	f.withRunnerProgram()
	f.Driver.BuildsDir = filepath.Join(f.dir, "builds")
	job := gitlab.Job{
		Name: "make", Variables: []gitlab.Variable{{Key: "V", Value: "12"}},
		Cache: []gitlab.Cache{{Key: "deps-$V", Paths: []string{"vendor/"}}, {Paths: []string{"x"}, Policy: "push"}, {Key: "k", Paths: []string{"y"}, Policy: "pull"}},
	}
	first, second := f.play(job), f.play(job)
	wantLine(t, first.Log, "Failed to extract cache")
	wantLine(t, second.Log, "Successfully extracted cache")
	wantLine(t, second.Log, "gitlab-runner cache-archiver --file ../../../cache/group/project/deps-12/cache.zip --timeout 10 --path vendor/")
	wantLine(t, second.Log, "gitlab-runner cache-archiver --file ../../../cache/group/project/make/main/cache.zip --timeout 10 --path x")
	wantLine(t, second.Log, "Not downloading cache make/main due to policy")
	wantLine(t, second.Log, "Not uploading cache k due to policy")
	if _, err := os.Stat(filepath.Join(f.dir, "cache/group/project/deps-12/cache.zip")); err != nil {
		t.Error(err)
	}
}

func TestArtifactsGoThroughTheProgramInTheMachine(t *testing.T) {
	f := inBash(t)
	f.withRunnerProgram()
	job := gitlab.Job{
		Artifacts:    []gitlab.Artifact{{Name: "all of it", Paths: []string{"out/"}, Exclude: []string{"*.o"}, ExpireIn: "1 week", Format: "zip", Type: "archive"}},
		Dependencies: []gitlab.Dependency{{ID: 5, Token: "t5", Name: "build", File: "artifacts.zip"}, {ID: 6, Name: "nothing left"}},
	}
	r := f.play(job)
	wantEnd(t, r, gitlab.Success, "", 0)
	wantLine(t, r.Log, "gitlab-runner artifacts-downloader --url https://gitlab.example --token t5 --id 5")
	wantLine(t, r.Log, "gitlab-runner artifacts-uploader --url https://gitlab.example --token [MASKED] --id 1001"+
		" --path out/ --exclude *.o --name all of it --expire-in 1 week --artifact-format zip --artifact-type archive")
	t.Run("and failing to upload them fails the job", func(t *testing.T) {
		f := inBash(t)
		f.withRunnerProgram()
		job.Artifacts[0].Paths = []string{"missing"}
		wantEnd(t, f.play(job), gitlab.Failed, gitlab.ScriptFailure, 1)
	})
}

func TestWithoutTheProgramTheJobOnlyLosesItsArtifacts(t *testing.T) {
	f := inBash(t)
	f.Env = append(f.Env, "PATH=/usr/bin:/bin")
	job := full()
	job.Dependencies = []gitlab.Dependency{{ID: 5, File: "artifacts.zip"}}
	r := f.play(job)
	wantEnd(t, r, gitlab.Success, "", 0)
	for _, action := range []string{"Extracting cache", "Artifacts downloading", "Creating cache", "Uploading artifacts"} {
		wantLine(t, r.Log, "Missing gitlab-runner. "+action+" is disabled.")
	}
}

func TestAScriptMayBeAMebibyteLong(t *testing.T) {
	r := inBash(t).play(gitlab.Job{Script: []string{"echo begin\n: " + strings.Repeat("x", 1<<20) + "\necho reached the end"}})
	wantLine(t, r.Log, "reached the end")
}
