package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/leftover"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fix does the fix of the only finding, and returns what it is.
func fix(t *testing.T, findings []Finding) (what string, err error) {
	t.Helper()
	if len(findings) != 1 || findings[0].Fix == nil || findings[0].State == Good {
		t.Fatalf("%+v", findings)
	}
	return findings[0].Fix.What, findings[0].Fix.Do(t.Context())
}

func TestKernelSettingsAreSetNowAndForTheNextBoot(t *testing.T) {
	dir := t.TempDir()
	sysctls, file := filepath.Join(dir, "sys"), filepath.Join(dir, "etc/sysctl.d/60-x.conf")
	for _, name := range []string{"user/max_net_namespaces", "user/max_mnt_namespaces", "kernel/pty/max"} {
		write(t, filepath.Join(sysctls, name), "10\n")
	}
	namespaces := sharedLimit{"user.max_*_namespaces", 20, 100, 50, "x"}
	ptys := sharedLimit{"kernel.pty.max", 20, 100, 40, "x"}
	if what, err := fix(t, ptys.check(sysctls, file)); err != nil || what != "set kernel.pty.max = 40, now and in "+file {
		t.Error(what, err)
	}
	if _, err := fix(t, namespaces.check(sysctls, file)); err != nil {
		t.Error(err)
	}
	want := ours + "-kernel.pty.max = 40\n-user.max_mnt_namespaces = 50\n-user.max_net_namespaces = 50\n"
	if got := content(t, file); got != want {
		t.Errorf("%q", got)
	}
	for _, limit := range []sharedLimit{namespaces, ptys} {
		if found := limit.check(sysctls, file); len(found) != 1 || found[0].State != Good || found[0].Fix != nil {
			t.Errorf("afterwards: %+v", found)
		}
	}
	write(t, filepath.Join(sysctls, "kernel/pty/max"), "10\n") // as after a boot of a kernel that read other files
	if _, err := fix(t, ptys.check(sysctls, file)); err != nil || content(t, file) != want {
		t.Errorf("again: %v: %q", err, content(t, file))
	}

	write(t, file, "kernel.pty.max = 3\n")
	write(t, filepath.Join(sysctls, "kernel/pty/max"), "10\n")
	if _, err := fix(t, ptys.check(sysctls, file)); err == nil || content(t, file) != "kernel.pty.max = 3\n" || content(t, filepath.Join(sysctls, "kernel/pty/max")) != "10\n" {
		t.Errorf("a file of somebody else's: %v: %q", err, content(t, file))
	}
}

func TestNeedrestartIsToldToLeaveMachinesAlone(t *testing.T) {
	dir := t.TempDir()
	if found := lookAtNeedrestart(dir); found[0].State != Good {
		t.Errorf("not installed: %+v", found)
	}
	write(t, filepath.Join(dir, "needrestart.conf"), "$nrconf{override_rc} = {\n # nspawn-runner\n qr(^dbus) => 0 };\n")
	write(t, filepath.Join(dir, "conf.d/other.conf"), "# nothing\n")
	if what, err := fix(t, lookAtNeedrestart(dir)); err != nil || what != "write "+filepath.Join(dir, needrestartFile) {
		t.Error(what, err)
	}
	if found := lookAtNeedrestart(dir); found[0].State != Good || found[0].Fix != nil || !strings.Contains(content(t, filepath.Join(dir, needrestartFile)), "qr(^gitlab-runner)} = 0;\n") {
		t.Errorf("%+v", found)
	}
	write(t, filepath.Join(dir, needrestartFile), "# by hand\n")
	if _, err := fix(t, lookAtNeedrestart(dir)); err == nil || content(t, filepath.Join(dir, needrestartFile)) != "# by hand\n" {
		t.Errorf("a file of somebody else's: %v", err)
	}
	write(t, filepath.Join(dir, "conf.d/nspawn-runner.conf"), "$nrconf{override_rc}{qr(^nspawn-runner)} = 0;\n")
	if found := lookAtNeedrestart(dir); found[0].State != Good {
		t.Errorf("with the package's file: %+v", found)
	}
}

func TestASecondProgramHidesTheFirst(t *testing.T) {
	dir := t.TempDir()
	local, bin, link := filepath.Join(dir, "local"), filepath.Join(dir, "bin"), filepath.Join(dir, "link")
	dirs := []string{local, link, bin}
	write(t, filepath.Join(bin, "nspawn-runner"), "packaged")
	if err := os.Symlink(bin, link); err != nil {
		t.Fatal(err)
	}
	if found := checkHidden(dirs); found[0].State != Good || found[0].Found != filepath.Join(link, "nspawn-runner") {
		t.Errorf("one, by two ways: %+v", found)
	}
	write(t, filepath.Join(local, "nspawn-runner"), "by hand")
	if found := checkHidden(dirs); found[0].State != Warning || found[0].Fix != nil || !strings.HasPrefix(found[0].Found, filepath.Join(local, "nspawn-runner")+" hides ") {
		t.Errorf("two: %+v", found)
	}
}

func TestNumbersThatNoTimerWritesAreNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "nspawn-runner.prom")
	wants := func(what string, dir string, enabled bool, want State) {
		t.Helper()
		if found := lookAtTextfile(dir, "x.timer", enabled); len(found) != 1 || found[0].State != want {
			t.Errorf("%s: %+v", what, found)
		}
	}
	wants("the timer is off", dir, false, Good)
	wants("no node_exporter", dir+"/none", true, Good)
	wants("no file", dir, true, Warning)
	write(t, file, "")
	wants("a new file", dir, true, Good)
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, then, then); err != nil {
		t.Fatal(err)
	}
	wants("an old file", dir, true, Warning)
}

func TestTheStateDirectoryIsClosedAndLeftoversAreRemoved(t *testing.T) {
	d := newDoctor(t, "", nil)
	if err := os.Chmod(d.Jobs.Config.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := fix(t, d.checkStateDir(t.Context())); err != nil {
		t.Error(err)
	}
	if found := d.checkStateDir(t.Context()); found[0].State != Good || found[0].Fix != nil {
		t.Errorf("%+v", found)
	}

	removed := 0
	busy := errors.New("\x1b[31mbusy")
	d.Leftovers = func(context.Context) ([]leftover.Item, error) {
		return []leftover.Item{
			{What: "machine", Path: "/x", Why: "old", Remove: func(context.Context) error { return busy }},
			{What: "trash", Path: "/y", Why: "old", Remove: func(context.Context) error { removed++; return nil }},
		}, nil
	}
	what, err := fix(t, d.checkLeftovers(t.Context()))
	if removed != 1 || err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "machine /x: ") || what != "remove what nobody owns (2), as gc does" {
		t.Errorf("%d, %q, %v", removed, what, err)
	}
}

func TestJSONSaysWhatAFixWouldDo(t *testing.T) {
	text, err := json.Marshal(withFix(isWarning("x", "y"), nil, "write %s", "z"))
	if err != nil || !strings.Contains(string(text), `"fix":"write z"`) {
		t.Errorf("%v: %s", err, text)
	}
}
