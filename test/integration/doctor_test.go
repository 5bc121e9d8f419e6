package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// finding is a line of the doctor's.
type finding struct {
	Check, State, Found string
	ToDo                string `json:"to_do"`
}

// doctor asks the doctor, on a PATH that begins with a directory, and returns
// the names of the checks that found something bad. Its exit code must fit.
func (h *host) doctor(t *testing.T, path string, args ...string) (broken []string, all []finding) {
	t.Helper()
	c := h.driveWith(t, []string{"PATH=" + path + ":" + os.Getenv("PATH")}, append([]string{"doctor", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(c.stdout), &all); err != nil {
		t.Fatalf("%v: %+v", err, c)
	}
	for _, f := range all {
		if f.State == "bad" {
			broken = append(broken, f.Check)
		}
		if f.State != "ok" {
			t.Logf("%+v", f)
		}
	}
	if (c.status == 0) != (broken == nil) {
		t.Errorf("exit %d with bad %q: %s", c.status, broken, c.stderr)
	}
	return slices.Compact(broken), all
}

// registered gives the host a gitlab-runner, in the directory that is returned,
// and a registration.
func (h *host) registered(t *testing.T) (bin, config string) {
	t.Helper()
	bin = t.TempDir()
	must(t, os.WriteFile(filepath.Join(bin, "gitlab-runner"), []byte("#!/bin/sh\n"), 0o755))
	config = "/etc/gitlab-runner/config.toml"
	must(t, os.MkdirAll(filepath.Dir(config), 0o755))
	must(t, os.WriteFile(config, []byte("concurrent = 4\n"+h.drives(t, "toml").stdout), 0o600))
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(config)) })
	return bin, config
}

func TestTheDoctorFindsNothingBadWhereAllIsWell(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		bin, _ := h.registered(t)
		h.book(t, "bookworm", "")
		if broken, all := h.doctor(t, bin, "--job", "bookworm"); broken != nil || len(all) < 20 {
			t.Errorf("%q of %d", broken, len(all))
		}
	})
}

func TestTheDoctorNamesWhatIsBroken(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	bin, config := h.registered(t)
	h.book(t, "bookworm", "")
	wants := func(what string, want ...string) {
		t.Helper()
		if broken, _ := h.doctor(t, bin); !slices.Equal(broken, want) {
			t.Errorf("%s: bad is %q, want %q", what, broken, want)
		}
	}
	wants("all is well")

	t.Cleanup(func() { h.configure(t, ""); shell(t, "systemctl unmask --runtime systemd-machined.service") }) // if the test ends before
	shell(t, "systemctl mask --runtime --now systemd-machined.service")
	wants("machined is masked", "machined")
	shell(t, "systemctl unmask --runtime systemd-machined.service")

	text, err := os.ReadFile(config)
	must(t, err)
	must(t, os.WriteFile(config, []byte(strings.ReplaceAll(string(text), h.driver, "/bin/true")), 0o600))
	wants("config.toml points elsewhere", "config.toml")
	must(t, os.WriteFile(config, text, 0o600))

	must(t, os.Remove(filepath.Join(bin, "gitlab-runner")))
	wants("no gitlab-runner", "gitlab-runner")
	must(t, os.WriteFile(filepath.Join(bin, "gitlab-runner"), []byte("#!/bin/sh\n"), 0o755))

	h.book(t, "bookworm", "nspawn_runner_boot_timeout: tomorrow")
	wants("a bad playbook", "playbooks")
	h.book(t, "bookworm", "nspawn_runner_devices: [/dev/nothing]")
	wants("a device that is not there", "images")
	h.book(t, "bookworm", "")

	h.addImage(t, "no-init", "rm -f usr/lib/systemd/systemd sbin/init")
	wants("an image without an init", "images")
	h.removeImage(t, "no-init")

	h.configure(t, "min_free_memory: 100%\n")
	wants("no memory", "memory")
	h.configure(t, "")

	dead := filepath.Join(h.state, ".machines", "dead")
	must(t, os.Mkdir(dead, 0o700))
	_, all := h.doctor(t, bin)
	if i := slices.IndexFunc(all, func(f finding) bool { return f.Check == "leftovers" }); i < 0 || all[i].State != "warning" || !strings.Contains(all[i].Found, dead) {
		t.Errorf("a leftover: %+v", all)
	}
	h.drives(t, "gc")
	if broken, _ := h.doctor(t, bin, "--job", "no-such-image"); !slices.Equal(broken, []string{"job"}) {
		t.Errorf("a job of no image: bad is %q", broken)
	}
	wants("all is well again")
}

func TestTheDoctorSaysThatAnOverlayCannotHoldTheStateDirectory(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	bin, _ := h.registered(t)
	top := t.TempDir()
	shell(t, "mount -t tmpfs none "+top+" && cd "+top+" && mkdir lower upper work state && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none state")
	t.Cleanup(func() { shell(t, "umount "+top+"/state "+top) })
	other := *h
	other.state, other.config = filepath.Join(top, "state"), filepath.Join(top, "config.yaml")
	other.configure(t, "min_free_disk: 0\n")
	broken, all := other.doctor(t, bin)
	if !slices.Contains(broken, "backend") {
		t.Errorf("bad is %q: %+v", broken, all)
	}
}

func TestTheDoctorFixesWhatCanDoNoHarm(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	bin, _ := h.registered(t)
	h.book(t, "bookworm", "")
	dead := filepath.Join(h.state, ".machines", "dead")
	must(t, os.Mkdir(dead, 0o700), os.Chmod(h.state, 0o755), os.MkdirAll("/etc/needrestart/conf.d", 0o755), os.WriteFile("/etc/needrestart/needrestart.conf", nil, 0o644))
	t.Cleanup(func() {
		must(t, os.RemoveAll("/etc/needrestart"), os.RemoveAll("/etc/sysctl.d/60-nspawn-runner-doctor.conf"))
	})
	// The kernel is the outer machine's too, so it is not to be changed.
	fix := func(flags string) string {
		out, _ := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c",
			fmt.Sprintf("mount -o bind,ro /proc/sys /proc/sys && PATH=%s:$PATH exec %s --config %s doctor --fix %s", bin, h.driver, h.config, flags)).CombinedOutput()
		return string(out)
	}
	steps := []string{"leftovers: remove what nobody owns (1), as gc does\n", "state directory: chmod 0700 " + h.state + "\n", "needrestart: write /etc/needrestart/conf.d/nspawn-runner-doctor.conf\n"}
	said := fix("--dry-run")
	for _, step := range steps {
		if !strings.Contains(said, "would fix "+step) || strings.Contains(said, "\nfixed ") {
			t.Errorf("no %q in %s", step, said)
		}
	}
	if _, err := os.Stat(dead); err != nil {
		t.Error("a dry run removed a leftover")
	}
	said = fix("")
	for _, step := range steps {
		if !strings.Contains(said, "fixed "+step) {
			t.Errorf("no %q in %s", step, said)
		}
	}
	_, err := os.Stat(dead)
	info, statErr := os.Stat(h.state)
	if err == nil || statErr != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v, %v", err, statErr, info.Mode())
	}
	if strings.Contains(said, "warning  leftovers") || strings.Contains(said, "warning  needrestart") {
		t.Errorf("afterwards: %s", said)
	}
	if said = fix(""); strings.Contains(said, "fixed leftovers") || strings.Contains(said, "fixed needrestart") || strings.Contains(said, "fixed state") {
		t.Errorf("again: %s", said)
	}
}
