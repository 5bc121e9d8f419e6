package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nspawn-runner/runner"
	"nspawn-runner/runner/gitlab"
)

// call runs the command line in this process. Its configuration names empty
// directories, so that no command finds an image, a machine or a playbook of the host
// that the tests run on.
func call(t *testing.T, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("state_dir: "+dir+"/state\nplaybook_dir: "+dir+"/playbooks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := commands()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	if err := root.PersistentFlags().Set("config", file); err != nil {
		t.Fatal(err)
	}
	err := root.Execute()
	return out.String(), err
}

func TestWithoutACommandThereIsHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"-h"}, {"--help"}, {"help"}} {
		out, err := call(t, args...)
		if err != nil {
			t.Errorf("%q: %v", args, err)
		}
		for _, command := range []string{"chroot-create", "chroot-list", "chroot-login", "chroot-maintenance", "chroot-show", "chroot-diff", "chroot-rollback", "chroot-prune", "chroot-remove", "prepare", "run", "cleanup", "gitlab-config", "toml", "try", "machine", "doctor", "gc"} {
			if !strings.Contains(out, "\n  "+command+" ") {
				t.Errorf("%q: no %s in\n%s", args, command, out)
			}
		}
		if strings.Contains(out, "empty-trash") {
			t.Errorf("%q: shows what nobody types:\n%s", args, out)
		}
	}
}

func TestTheOriginalsCommandLinesAreUnderstood(t *testing.T) {
	// They fail later: here is no root, no image or no job; but not for how
	// they are written.
	for _, line := range []string{
		"--verbose prepare --default-image=unstable",
		"-v --debug prepare --id 1 bookworm",
		"run --id 1 --shell /bin/bash /nowhere build_script",
		"cleanup --id=../x",
		"chroot-create --suite sid --default-image a@b",
		"chroot-login --default-image a@b",
	} {
		_, err := call(t, strings.Fields(line)...)
		if err == nil || strings.Contains(err.Error(), "unknown") || strings.Contains(err.Error(), "usage") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestWhatChangesAnImageMustBeToldWhich(t *testing.T) {
	for _, command := range []string{"chroot-rollback", "chroot-remove", "chroot-show", "chroot-diff"} {
		if _, err := call(t, command); err == nil || !strings.Contains(err.Error(), "usage: nspawn-runner "+command+" IMAGE") {
			t.Errorf("%s: %v", command, err)
		}
	}
}

func TestALoginIsToTheFailedTreeOrToACopy(t *testing.T) {
	if _, err := call(t, "chroot-login", "--failed", "--discard", "sid"); err == nil || !strings.Contains(err.Error(), "none of the others can be") {
		t.Errorf("%v", err)
	}
}

func TestExitCodes(t *testing.T) {
	t.Setenv("BUILD_FAILURE_EXIT_CODE", "")
	t.Setenv("SYSTEM_FAILURE_EXIT_CODE", "")
	t.Setenv("BUILD_EXIT_CODE_FILE", filepath.Join(t.TempDir(), "code"))
	ours, theirs := errors.New("x"), &gitlab.BuildFailure{Code: 7}
	refused := &gitlab.BuildFailure{Code: 1, Err: errors.New("no such image")}
	for _, test := range []struct {
		kind string
		err  error
		want int
	}{
		{exitAsStage, nil, 0}, {exitAsStage, theirs, 1}, {exitAsStage, ours, 2}, {exitAsStage, refused, 1},
		{"", theirs, 7}, {"", ours, 1}, {"", refused, 1}, {"", nil, 0}, {"", errors.Join(theirs, ours), 7},
	} {
		if got := exitCode(test.kind, test.err); got != test.want {
			t.Errorf("%s %v: %d, want %d", test.kind, test.err, got, test.want)
		}
	}
}

func TestOnlyAFailedScriptIsNoMessage(t *testing.T) {
	failed := &gitlab.BuildFailure{Code: 7}
	for _, test := range []struct {
		err  error
		want string
	}{
		{failed, ""},
		{errors.Join(failed, nil), ""},
		{errors.Join(failed, errors.New("machine not removed")), "nspawn-runner: the script failed with exit code 7\nmachine not removed\n"},
		{fmt.Errorf("lost: %w", failed), "nspawn-runner: lost: the script failed with exit code 7\n"},
		{&gitlab.BuildFailure{Code: 1, Err: errors.New("no such image")}, "nspawn-runner: no such image\n"},
	} {
		if got := stderrOf(t, func() { exitCode("", test.err) }); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// stderrOf is what a function prints to standard error.
func stderrOf(t *testing.T, do func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = before }()
	do()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatTryRuns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		dash int
		want string
	}{
		{[]string{"sid", "echo", "it's $x"}, 1, "exec echo 'it'\"'\"'s $x'\n"},
		{[]string{"sid", file}, -1, "from a file"},
	} {
		script, err := tryScript(test.args, test.dash)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(script); string(got) != test.want {
			t.Errorf("%q: %q, want %q", test.args, got, test.want)
		}
	}
	for _, bad := range []struct {
		args []string
		dash int
	}{{[]string{"sid", "a", "b"}, -1}, {[]string{"sid"}, 1}, {[]string{"sid", "a", "b"}, 2}, {[]string{"sid", "/nowhere"}, -1}} {
		if _, err := tryScript(bad.args, bad.dash); err == nil {
			t.Errorf("%q: no error", bad.args)
		}
	}
}

func TestAnUnknownCommandIsNoSuccess(t *testing.T) {
	for line, want := range map[string]string{
		"no-such":     `unknown command "no-such" of nspawn-runner`,
		"doctr":       "did you mean doctor?",
		"machine lst": `unknown command "lst" of nspawn-runner machine; did you mean list?`,
	} {
		if _, err := call(t, strings.Fields(line)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestTheVersionIsPrintedByTheCommandAndTheFlag(t *testing.T) {
	line, err := call(t, "version")
	if err != nil || !strings.HasPrefix(line, "nspawn-runner "+runner.Version+", ") || !strings.Contains(line, runtime.Version()) {
		t.Errorf("%v: %q", err, line)
	}
	if out, err := call(t, "--version"); err != nil || out != line {
		t.Errorf("%v: %q, want %q", err, out, line)
	}
	out, err := call(t, "version", "--json")
	var build runner.Build
	if err != nil || json.Unmarshal([]byte(out), &build) != nil || build != runner.ThisBuild() {
		t.Errorf("%v: %q", err, out)
	}
}
