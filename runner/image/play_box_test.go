package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestPlaybookRunsInABox(t *testing.T) {
	s, calls := fakeStore(t, "sid", `- hosts: all
  fake: |
    echo "$$ $(cat /proc/1/comm)" > $1/etc/inside
    cat $1/etc/resolv.conf > $1/etc/resolved
    $1/usr/sbin/policy-rc.d; echo $? > $1/etc/policy
    setsid sleep 765432 >/dev/null 2>&1 & echo done
`)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	var verbose bytes.Buffer
	s.Verbose = &verbose
	generation := create(t, s, "sid")
	dir := s.PlaybookDirs[0]
	called := read(t, calls)
	for _, want := range []string{
		"--quiet --register=no --keep-unit --settings=no --directory=" + generation.Path + " --machine=build-sid --hostname=sid ",
		" " + dir + "/sid.yaml in " + dir + " with proxy proxy.example:3128\n",
		"connection chroot, proxy inside proxy.example:3128\n",
	} {
		if !strings.Contains(called, want) {
			t.Errorf("called %s, without %s", called, want)
		}
	}
	pid, name, _ := strings.Cut(read(t, filepath.Join(generation.Path, "etc/inside")), " ")
	if number, err := strconv.Atoi(pid); err != nil || number > 50 || name != "sh\n" {
		t.Errorf("it ran as process %s under %q", pid, name)
	}
	if got, want := read(t, filepath.Join(generation.Path, "etc/resolved")), read(t, "/etc/resolv.conf"); got != want {
		t.Errorf("resolv.conf was %q", got)
	}
	if got := read(t, filepath.Join(generation.Path, "etc/policy")); got != "101\n" {
		t.Errorf("policy-rc.d said %q", got)
	}
	for _, path := range []string{"etc/resolv.conf", "etc/hosts", "usr/sbin/policy-rc.d"} {
		if exists(filepath.Join(generation.Path, path)) {
			t.Errorf("/%s was left behind", path)
		}
	}
	if running("sleep 765432") {
		t.Error("a process outlived the build")
	}
	if !strings.Contains(verbose.String(), "\ndone\n") {
		t.Errorf("shown was %s", verbose.String())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestFailedPlaybookNamesTheTask(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: exit 3\n")
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if want := `/sid.yaml: task "fake": first; ...; third; fourth; fifth (full log: `; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, without %s", err, want)
	}
	wantFailed(t, s, "sid")
}

func TestPlaybookWithoutAnsibleFailsAtOnce(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	t.Setenv("PATH", t.TempDir())
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "apt-get install ansible-core") {
		t.Errorf("error is %v", err)
	}
	if exists(calls) {
		t.Errorf("called was %s", read(t, calls))
	}
}

func TestEmptyPlaybookIsAWarning(t *testing.T) {
	s, calls := fakeStore(t, "sid", "# to be written\n")
	var steps []string
	s.Progress = told(&steps)
	create(t, s, "sid")
	if steps[0] != "warning: playbook "+s.PlaybookDirs[0]+"/sid.yaml: is empty" || strings.Contains(read(t, calls), "ansible") {
		t.Errorf("steps are %q, called was %s", steps, read(t, calls))
	}
}

func TestBoxThatDoesNotStartIsAnError(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	write(t, filepath.Join(filepath.Dir(calls), "systemd-nspawn"), "#!/bin/sh\necho no such thing here >&2\nexit 5\n")
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "systemd-nspawn: exit status 5: no such thing here") {
		t.Errorf("error is %v", err)
	}
	wantNothing(t, s, "sid")
}

func TestAnsibleHasColoursWhereItsOutputIsShownAtATerminal(t *testing.T) {
	for _, colours := range []bool{false, true} {
		s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: echo \"colours=$ANSIBLE_FORCE_COLOR.\"\n")
		t.Setenv("ANSIBLE_FORCE_COLOR", "")
		s.Colours = colours
		create(t, s, "sid")
		if got := strings.Contains(read(t, logOf(t, s)), "\ncolours=1.\n"); got != colours {
			t.Errorf("colours %v: %v", colours, got)
		}
	}
}
