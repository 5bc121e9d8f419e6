package texts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// generated are the texts of the program, as a package has them, and its commands.
func generated(t *testing.T) (dir string, commands []string) {
	t.Helper()
	dir = t.TempDir()
	program := filepath.Join(dir, "generate")
	if out, err := exec.Command("go", "build", "-tags=generate", "-o", program, "nspawn-runner/cmd/nspawn-runner").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(program, "generate", "/usr/bin", dir)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1764000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	help, err := exec.Command(program, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(help)) {
		if words := strings.Fields(line); strings.HasPrefix(line, "  ") && len(words) > 1 && words[0] != "help" && !strings.HasPrefix(words[0], "-") && words[0] != "nspawn-runner" {
			commands = append(commands, words[0])
		}
	}
	return dir, commands
}

func TestEachCommandHasAPageOfTheManualAndNoPageHasAMistake(t *testing.T) {
	dir, commands := generated(t)
	if len(commands) < 15 {
		t.Errorf("commands: %q", commands)
	}
	for _, command := range commands {
		page, err := os.ReadFile(filepath.Join(dir, "man/nspawn-runner-"+command+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{"Nov 2025", "\n.SH NAME\nnspawn-runner-" + command, ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH SEE ALSO\n\\fBnspawn-runner(1)\\fP"} {
			if !strings.Contains(string(page), part) {
				t.Errorf("%s: no %q: %s", command, part, page)
			}
		}
	}
	main, err := os.ReadFile(filepath.Join(dir, "man/nspawn-runner.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{".SH COMMANDS", ".SH EXIT STATUS", ".SH FILES", ".TP\n\\fB--config\\fP \\fIFILE\\fP\n", "nspawn-runner.yaml(5)"} {
		if !strings.Contains(string(main), part) {
			t.Errorf("no %q: %s", part, main)
		}
	}
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("man is not installed: debian/rules checks the pages too")
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil || said.Len() > 0 {
			t.Errorf("%s: %v: %s", page, err, &said)
		}
	}
}

func TestThePagesOfSettingsHaveEachSetting(t *testing.T) {
	dir := t.TempDir()
	if err := writeSettings(dir); err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string][]string{
		"nspawn-runner.yaml.5":     {"\\fBmemory_max\\fP", "\\fBimages\\fP", "\\fBstate_dir\\fP"},
		"nspawn-runner-playbook.5": {"\\fBnspawn_runner_memory_max\\fP", "\\fBnspawn_runner_chroot_suite\\fP", "begin with \\fBnspawn_runner_\\fR"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s: no %q: %s", page, part, text)
			}
		}
	}
}

func TestEachTextIsWhereThePackageTakesItFrom(t *testing.T) {
	dir, _ := generated(t)
	install, err := os.ReadFile("../../debian/nspawn-runner.install")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(install)) {
		if name, is := strings.CutPrefix(strings.Fields(line)[0], "_build/texts/"); is {
			if found, err := filepath.Glob(filepath.Join(dir, name)); err != nil || len(found) == 0 {
				t.Errorf("there is no %s", name)
			}
		}
	}
	unit, err := os.ReadFile(filepath.Join(dir, "units/nspawn-runner-maintenance.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/usr/bin/nspawn-runner ") {
		t.Errorf("%v: %s", err, unit)
	}
}
