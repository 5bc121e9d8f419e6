package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completed is what a command line offers for its last word, and what the shell does beside.
func completed(t *testing.T, args ...string) (words []string, directive string) {
	t.Helper()
	root := commands()
	var out, said bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&said)
	root.SetArgs(append([]string{"__completeNoDesc"}, args...))
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(out.String())
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestTheShellIsShownFlagsWithoutTheMarksOfTheirValues(t *testing.T) {
	root := commands()
	unmarkUsages(root)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs([]string{"__complete", "doctor", "--"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "`") || !strings.Contains(text, "--job\trun a job of this image too\n") || !strings.Contains(text, "--config\tconfiguration file") {
		t.Error(text)
	}
}

func TestTheShellIsOfferedImagesMachinesGenerationsAndFilesWhereTheyFit(t *testing.T) {
	top := t.TempDir()
	state, playbooks, config := filepath.Join(top, "state"), filepath.Join(top, "playbooks"), filepath.Join(top, "config")
	for _, dir := range []string{"a/20260101T000000Z", "a/20260201T000000Z", "b/20260301T000000Z"} {
		if err := os.MkdirAll(filepath.Join(state, ".generations", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"a": ".generations/a/20260201T000000Z", "b": ".generations/b/20260301T000000Z"} {
		if err := os.Symlink(to, filepath.Join(state, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(playbooks, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("state_dir: "+state+"\nplaybook_dir: "+playbooks+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const files, nothing, inOrder = ":0", ":4", ":36"
	for line, want := range map[string]struct {
		words     string
		directive string
	}{
		"chroot-show _":                   {"a b", nothing},
		"chroot-show a _":                 {"", nothing},
		"chroot-create --suite x _":       {"a b", nothing},
		"chroot-rollback a --to _":        {"20260201T000000Z 20260101T000000Z", inOrder},
		"chroot-rollback --to _":          {"", inOrder},
		"chroot-rollback .. --to _":       {"", inOrder},
		"try _":                           {"a b", nothing},
		"try a _":                         {"", files},
		"doctor --job _":                  {"a b", nothing},
		"prepare --allow-image _":         {"a b", nothing},
		"toml --default-image _":          {"a b", nothing},
		"run _":                           {"", files},
		"run --id _":                      {"", nothing},
		"machine login _":                 {"", nothing},
		"machine _":                       {"list login", nothing},
		"image remove _":                  {"", nothing},
		"gc _":                            {"", nothing},
		"chroot-list _":                   {"", nothing},
		"chroot-create --default-image=_": {"a b", nothing},
	} {
		args := strings.Fields(line)
		args[len(args)-1] = strings.TrimSuffix(args[len(args)-1], "_")
		words, directive := completed(t, append([]string{"--config", config}, args...)...)
		if !slices.Equal(words, strings.Fields(want.words)) || directive != want.directive {
			t.Errorf("%s: %q %s, want %q %s", line, words, directive, want.words, want.directive)
		}
	}
}

func TestACompletionIsSilentAboutABrokenConfiguration(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("no_such_key: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"chroot-show", ""}, {"machine", "login", ""}, {"chroot-rollback", "a", "--to", ""}} {
		if words, _ := completed(t, append([]string{"--config", config}, args...)...); len(words) > 0 {
			t.Errorf("%q: %q", args, words)
		}
	}
}
