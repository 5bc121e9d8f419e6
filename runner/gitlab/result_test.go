package gitlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestEveryBuildFailureWritesItsCode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "code")
	vars := env("BUILD_EXIT_CODE_FILE", path, "BUILD_FAILURE_EXIT_CODE", "1", "SYSTEM_FAILURE_EXIT_CODE", "2")
	for _, test := range []struct {
		err  error
		code int
		file string
	}{
		{nil, 0, ""},
		{errors.New("ours"), 2, ""},
		{&BuildFailure{Code: 3}, 1, "3"},
		{fmt.Errorf("wrapped: %w", &BuildFailure{Code: 137, Err: errors.New("killed")}), 1, "137"},
		{&BuildFailure{}, 1, "1"}, // GitLab would show 0 as no code
	} {
		os.Remove(path)
		code, err := ExitCode(vars, test.err)
		file, _ := os.ReadFile(path)
		if code != test.code || err != nil || string(file) != test.file {
			t.Errorf("%v: %d, %v, file %q", test.err, code, err, file)
		}
	}
}

func TestWhenTheCodeCannotBeWrittenNoOlderOneIsLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "missing", "code")
	if code, err := ExitCode(env("BUILD_EXIT_CODE_FILE", path), &BuildFailure{Code: 3}); code != 1 || err == nil {
		t.Errorf("%d, %v", code, err)
	}
}

func TestExitCodesAreGitlabRunnersOrOneAndTwo(t *testing.T) {
	for _, test := range []struct{ build, system string }{{"1", "2"}, {"", ""}, {"x", "-1"}, {"0", "999"}} {
		vars := env("BUILD_FAILURE_EXIT_CODE", test.build, "SYSTEM_FAILURE_EXIT_CODE", test.system)
		build, _ := ExitCode(vars, &BuildFailure{Code: 9})
		system, _ := ExitCode(vars, errors.New("ours"))
		if build != 1 || system != 2 {
			t.Errorf("%+v: %d, %d", test, build, system)
		}
	}
	if code, _ := ExitCode(env("SYSTEM_FAILURE_EXIT_CODE", "77"), errors.New("ours")); code != 77 {
		t.Errorf("got %d", code)
	}
}

func TestABuildFailureHasATextWithAndWithoutAReason(t *testing.T) {
	for want, failure := range map[string]*BuildFailure{
		"the script failed with exit code 7": {Code: 7},
		"no such image":                      {Code: 1, Err: errors.New("no such image")},
	} {
		if got := fmt.Sprint(failure); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
