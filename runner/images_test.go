package runner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nspawn-runner/runner/config"
)

// bootstrapHost is a host whose mmdebstrap only notes how it was called, so that
// its ansible-playbook is never reached.
func bootstrapHost(t *testing.T, file, playbook string) (h *Host, called func() string) {
	if os.Geteuid() != 0 {
		t.Skip("images are for root")
	}
	dir := t.TempDir()
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	calls := filepath.Join(dir, "calls")
	write(filepath.Join(dir, "mmdebstrap"), "#!/bin/sh\necho \"$*\" >> "+calls+"\nexit 1\n")
	write(filepath.Join(dir, "ansible-playbook"), "#!/bin/sh\nexit 1\n")
	write(filepath.Join(dir, "eatmydata"), "#!/bin/sh\nexec \"$@\"\n")
	write(filepath.Join(dir, "apt-helper"), "#!/bin/sh\necho 'E: Failed to fetch it  404  Not Found'\nexit 100\n")
	write(filepath.Join(dir, "pasta"), "#!/bin/sh\n")
	write(filepath.Join(dir, "image.yaml"), playbook)
	write(filepath.Join(dir, "config"), "state_dir: "+dir+"/state\nplaybook_dir: "+dir+"\n"+file)
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	settings, err := config.Load(filepath.Join(dir, "config"))
	if err != nil {
		t.Fatal(err)
	}
	h = assemble(settings, Options{}, "")
	h.env = func(string) string { return "" }
	return h, func() string {
		text, _ := os.ReadFile(calls)
		os.Remove(calls)
		return string(text)
	}
}

// hear collects the lines of a host's events, which come from several goroutines.
func hear(h *Host) *bytes.Buffer {
	var heard bytes.Buffer
	var mu sync.Mutex
	h.events = func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if line := e.String(); line != "" {
			heard.WriteString(line + "\n")
		}
	}
	return &heard
}

// maintain maintains images, and returns all that failed.
func maintain(t *testing.T, h *Host, how Maintenance) error {
	t.Helper()
	all, err := h.Maintain(t.Context(), how)
	for _, m := range all {
		err = errors.Join(err, m.Err())
	}
	return err
}

func TestImageIsMadeOfWhatPlaybookFileAndCommandLineSay(t *testing.T) {
	h, called := bootstrapHost(t, "mirror: http://mirror.example/debian\ncomponents: main contrib\nvariant: buildd\n",
		"- vars:\n    nspawn_runner_chroot_suite: trixie\n    nspawn_runner_components: [main]\n    nspawn_runner_include: less\n")
	for suite, want := range map[string]string{"": " trixie ", "sid": " sid "} {
		if _, err := h.Create(t.Context(), "image", suite); err == nil {
			t.Error("no error")
		}
		got := called()
		for _, want := range []string{"--variant=buildd --components=main --include=git,", ",less ", want, " http://mirror.example/debian\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("suite %q: called %s without %q", suite, got, want)
			}
		}
	}
	if _, err := h.Create(t.Context(), "other", ""); err == nil {
		t.Error("no error")
	}
	if got := called(); !strings.Contains(got, "--components=main,contrib") || !strings.Contains(got, " unstable ") {
		t.Errorf("an image without a playbook: called %s", got)
	}
	if err := maintain(t, h, Maintenance{Image: "image"}); err == nil || !strings.Contains(called(), " trixie ") {
		t.Errorf("maintenance that creates: %v", err)
	}
}

func TestSuiteOfTheCommandLineIsNoOption(t *testing.T) {
	h, called := bootstrapHost(t, "", "")
	for _, suite := range []string{"--setup-hook=x", "../x", "a b"} {
		if _, err := h.Create(t.Context(), "image", suite); err == nil || !strings.Contains(err.Error(), "is not the name of a suite") || called() != "" {
			t.Errorf("suite %q: %v", suite, err)
		}
	}
}

func TestMaintenanceDoesNotGuessASuite(t *testing.T) {
	h, called := bootstrapHost(t, "", "- hosts: all\n")
	err := maintain(t, h, Maintenance{Image: "image"})
	if err == nil || !strings.Contains(err.Error(), "nspawn_runner_chroot_suite is missing") || called() != "" {
		t.Errorf("error is %v", err)
	}
}

func TestAnOddNameFailsItsOwnImageOnly(t *testing.T) {
	h, called := bootstrapHost(t, "", "- vars:\n    nspawn_runner_chroot_suite: trixie\n")
	for _, name := range []string{"an image", "a:b", "-x"} {
		path := filepath.Join(h.config.PlaybookDir, name+".yaml")
		if err := os.WriteFile(path, []byte("- vars:\n    nspawn_runner_chroot_suite: sid\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said := hear(h)
	if err := maintain(t, h, Maintenance{}); err == nil {
		t.Error("no error")
	}
	if got := called(); strings.Count(got, " trixie ") != 1 || strings.Contains(got, " sid ") {
		t.Errorf("called %s", got)
	}
	if !strings.Contains(said.String(), `image "an image": the name has ' '`) {
		t.Errorf("said %s", said.String())
	}
}

func TestWhatMachinesWillMissIsSaidBeforeABuild(t *testing.T) {
	for setting, want := range map[string]string{
		"nspawn_runner_binds: [/no/such/path]":     "nspawn_runner_binds: /no/such/path: there is no such",
		"nspawn_runner_devices: [/dev/nspawnless]": "nspawn_runner_devices: device /dev/nspawnless: there is no such",
	} {
		h, called := bootstrapHost(t, "", "- vars:\n    nspawn_runner_chroot_suite: trixie\n    "+setting+"\n")
		for _, build := range []func() error{
			func() error { _, err := h.Create(t.Context(), "image", ""); return err },
			func() error { return maintain(t, h, Maintenance{Image: "image"}) },
		} {
			if err := build(); err == nil || !strings.Contains(err.Error(), "image image: "+want) || called() != "" {
				t.Errorf("%s: %v", setting, err)
			}
		}
	}
}

func TestMaintenanceOfAllSkipsWhatIsNoImagesAndSaysSoOnce(t *testing.T) {
	h, _ := bootstrapHost(t, "", "- hosts: all\n")
	dir := h.config.PlaybookDir
	if err := os.Remove(filepath.Join(dir, "image.yaml")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"requirements.yml": "- {name: role, src: x}\n", "tasks.yaml": "- apt: {name: less}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says := hear(h)
	if err := maintain(t, h, Maintenance{}); err != nil {
		t.Error(err)
	}
	if want := "skipped, since no image is made of them: " + dir + "/requirements.yml, " + dir + "/tasks.yaml\n"; strings.Count(says.String(), want) != 1 {
		t.Errorf("it says %q", says.String())
	}
	err := maintain(t, h, Maintenance{Image: "tasks"})
	if want := "tasks.yaml is not a playbook: nothing in its list is a play, which has hosts"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("asked for by name: %v", err)
	}
}

func TestAPruneOfAllGoesOnAfterAFailureAndSaysWhatItRemoved(t *testing.T) {
	h, _ := bootstrapHost(t, "", "- hosts: all\n")
	state := h.config.StateDir
	for _, name := range []string{"a", "b", "c"} {
		for _, stamp := range []string{"20250101T000000Z", "20250102T000000Z", "20250103T000000Z"} {
			if err := os.MkdirAll(filepath.Join(state, ".generations", name, stamp), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(".generations/"+name+"/20250103T000000Z", filepath.Join(state, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(state, ".generations/b/20250103T000000Z.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := h.Prune(t.Context(), "", 2)
	var removed []string
	for _, p := range all {
		removed = append(removed, p.Removed...)
	}
	if strings.Join(removed, " ") != "a/20250101T000000Z c/20250101T000000Z" || err == nil || !strings.Contains(err.Error(), "image b: ") {
		t.Errorf("removed %q: %v", removed, err)
	}
}
