package image

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/image/box"
)

// fakeMachine gives a store machines that are a process with namespaces of its own, on
// the host's tree. What becomes of them is added to done; the shutdown may fail.
func fakeMachine(t *testing.T, s *Store, done *[]string, shutdown error) {
	s.Boot = func(_ context.Context, order Order) (*box.Machine, error) {
		order.Begin([]string{"etc/hosts", "etc/resolv.conf", "etc/more/file", "srv/of/a/bind"})
		for path, text := range map[string]string{
			"etc/hosts": "127.0.1.1 run-build\n", "etc/resolv.conf": "nameserver 192.0.0.3\n", "etc/more/file": "",
			"etc/machine-id": "abcdef\n", "var/log/journal/abcdef/system.journal": "", "var/lib/systemd/random-seed": "", "tmp/.X11-unix/x": "",
		} {
			write(t, filepath.Join(order.Generation.Path, path), text)
		}
		if err := os.MkdirAll(filepath.Join(order.Generation.Path, "srv/of/a/bind"), 0o755); err != nil {
			t.Error(err)
		}
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		end := func(how string, err error) func(context.Context) error {
			return func(context.Context) error {
				*done = append(*done, how+" "+order.Image)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				return err
			}
		}
		alive := func() bool { return cmd.Process.Signal(syscall.Signal(0)) == nil }
		words := func(context.Context) []string {
			return []string{"systemd[1]: db.service: Failed", "db[7]: no such option"}
		}
		return &box.Machine{PID: cmd.Process.Pid, Alive: alive, Group: t.TempDir(), LastWords: words, Shutdown: end("shut down", shutdown), Kill: end("kill", nil)}, nil
	}
}

func TestAPlaybookRunsInAMachineOfWhichItsTreeKeepsNothing(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- hosts: all\n  fake: echo changed > $1/etc/resolv.conf; cat $1/etc/hosts; readlink /proc/self/ns/net; ls $1/usr/sbin/policy-rc.d || echo starts\n")
	var done []string
	fakeMachine(t, s, &done, nil)
	t.Setenv("FAKE_BOOTSTRAP", `echo own > $root/etc/hosts; mkdir $root/tmp`)
	generation, err := s.Create(t.Context(), "sid", CreateOptions{Booted: true})
	if err != nil {
		t.Fatal(err)
	}
	if log := read(t, logOf(t, s)); !strings.Contains(log, "127.0.1.1 run-build\n") || !strings.Contains(log, "starts\n") {
		t.Errorf("in the machine: %s", log)
	}
	if strings.Contains(read(t, calls), "systemd-nspawn") || !slices.Equal(done, []string{"shut down sid"}) {
		t.Errorf("%q, calls: %s", done, read(t, calls))
	}
	for path, want := range map[string]string{"etc/hosts": "own\n", "etc/resolv.conf": "changed\n", "etc/machine-id": ""} {
		if got := read(t, filepath.Join(generation.Path, path)); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
	for _, path := range []string{"etc/more", "srv", "var/log/journal/abcdef", "var/lib/systemd/random-seed", "tmp/.X11-unix"} {
		if exists(filepath.Join(generation.Path, path)) {
			t.Errorf("%s is still there", path)
		}
	}
}

// logOf is the only log there is.
func logOf(t *testing.T, s *Store) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(s.StateDir, ".logs", "*"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs: %q, %v", logs, err)
	}
	return logs[0]
}

func TestAMachineThatDoesNotShutDownInGoodOrderOrEndsTooEarlyFailsTheBuild(t *testing.T) {
	for _, test := range []struct {
		play     string
		shutdown error
		want     string
	}{
		{"true", errors.New("db.service was killed"), "db.service was killed"},
		{"exit 3", nil, `task "fake": first`},
		{"exit 3", errors.New("db.service was killed"), `task "fake": first`},
		{"kill -9 $PPID", nil, "the machine of the build has ended: a playbook cannot reboot or shut down what it builds"},
	} {
		s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: "+test.play+"\n")
		var done []string
		fakeMachine(t, s, &done, test.shutdown)
		if strings.HasPrefix(test.play, "kill") { // of the machine, by its number on the host
			boot := s.Boot
			s.Boot = func(ctx context.Context, order Order) (*box.Machine, error) {
				m, err := boot(ctx, order)
				write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: all\n  fake: exit 3\n")
				_ = unix.Kill(m.PID, unix.SIGKILL)
				_ = m.Kill(ctx)
				return m, err
			}
		}
		_, err := s.Create(t.Context(), "sid", CreateOptions{Booted: true})
		var kept *KeptError
		if !errors.As(err, &kept) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.play, err)
		}
		wantFailed(t, s, "sid")
	}
}

func TestAServiceThatFailsInABootedBuildSaysWhyInTheError(t *testing.T) {
	for said, want := range map[string]bool{"Unable to start service db: Job for db.service failed because": true, "non-zero return code": false} {
		s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: exit 3\n")
		fakeMachine(t, s, new([]string), nil)
		t.Setenv("FAKE_FAILURE", `{"task": "fake", "lines": ["`+said+`"]}`)
		_, err := s.Create(t.Context(), "sid", CreateOptions{Booted: true})
		if err == nil || strings.Contains(err.Error(), said+"\nthe last lines of its machine's journal:\n  systemd[1]: db.service: Failed\n  db[7]: no such option") != want {
			t.Errorf("%s: %v", said, err)
		}
	}
}

func TestABootedBuildWhereNoMachineCanBeStartedSaysSoBeforeItBegins(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- hosts: all\n  fake: true\n", "none", "")
	_, err := s.Create(t.Context(), "sid", CreateOptions{Booted: true})
	if err == nil || !strings.Contains(err.Error(), "build: booted needs a host that systemd runs") || exists(calls) {
		t.Errorf("%v", err)
	}
	if _, err := s.Create(t.Context(), "none", CreateOptions{Booted: true}); err != nil {
		t.Errorf("without a play: %v", err)
	}
}

func TestMachinesAreEndedBeforeTheTreeOfAKilledBuildGoesAndOnNoOther(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	var halted []string
	s.Halt = func(_ context.Context, generation string) error {
		if !exists(filepath.Join(s.StateDir, ".generations", generation)) {
			t.Errorf("%s is gone already", generation)
		}
		halted = append(halted, generation)
		return nil
	}
	create(t, s, "sid")
	if halted != nil {
		t.Errorf("halted: %q", halted)
	}
	write(t, filepath.Join(s.generations("sid"), ".build"), "20270101T000000Z\n1\n")
	write(t, filepath.Join(s.generations("sid"), "20270101T000000Z", "file"), "")
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); err != nil || !slices.Equal(halted, []string{"sid/20270101T000000Z"}) {
		t.Errorf("%v, halted: %q", err, halted)
	}
}
