package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/debian"
)

// mergedUsr is what mmdebstrap is told besides.
const mergedUsr = " --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr"

func TestCreatePublishesATreeThatForgotItsHost(t *testing.T) {
	s, calls := fakeStore(t)
	var steps []string
	s.Progress = told(&steps)
	generation := create(t, s, "my_image")

	want := "mmdebstrap --variant=minbase --components=main --include=git,dbus,systemd,python3,ca-certificates,systemd-sysv,netbase,procps" + mergedUsr + " trixie " + generation.Path + "\n"
	if got := read(t, calls); !strings.Contains(got, "\n"+want) {
		t.Errorf("called\n%s\nnot\n%s", got, want)
	}
	if target, err := os.Readlink(filepath.Join(s.StateDir, "my_image")); err != nil || target != ".generations/"+generation.Name {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	wantOnly(t, s, "my_image", generation)
	if got := read(t, filepath.Join(generation.Path, "etc/hostname")); got != "my-image\n" {
		t.Errorf("/etc/hostname is %q", got)
	}
	if got := read(t, filepath.Join(generation.Path, "etc/machine-id")); got != "" {
		t.Errorf("/etc/machine-id is %q", got)
	}
	for _, path := range []string{"etc/resolv.conf", "var/lib/dbus/machine-id"} {
		if exists(filepath.Join(generation.Path, path)) {
			t.Errorf("/%s is the host's", path)
		}
	}
	for path, mode := range map[string]fs.FileMode{s.StateDir: 0o700, generation.Path: 0o755} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode of %s: %v, %v", path, info.Mode(), err)
		}
	}
	wantSteps := []string{"bootstrap trixie with mmdebstrap", "check", "publish"}
	if !slices.Equal(steps, wantSteps) {
		t.Errorf("steps are %q", steps)
	}
}

func TestBothProgramsAreToldWhatTheImageIsMadeOf(t *testing.T) {
	s, calls := fakeStore(t)
	bin := filepath.Dir(calls)
	fake := read(t, filepath.Join(bin, "mmdebstrap"))
	write(t, filepath.Join(bin, "debootstrap"), strings.Replace(fake, "echo mmdebstrap", "echo debootstrap", 1))
	if err := os.Chmod(filepath.Join(bin, "debootstrap"), 0o755); err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(t.TempDir(), "ubuntu.gpg")
	write(t, keyring, "keys")
	o := debian.Bootstrap{
		Suite: "noble", Mirror: "http://ubuntu.example/ubuntu", Components: []string{"main", "universe"},
		Keyring: keyring, Include: []string{"ubuntu-keyring"}, Variant: "buildd",
	}
	for _, o.Program = range []string{"mmdebstrap", "debootstrap"} {
		generation, err := s.Create(t.Context(), o.Program, CreateOptions{Bootstrap: o})
		if err != nil {
			t.Fatal(err)
		}
		hook := ""
		if o.Program == "mmdebstrap" {
			hook = mergedUsr
		}
		want := "\n" + o.Program + " --variant=buildd --components=main,universe --include=git,dbus,systemd,python3,ca-certificates,systemd-sysv,netbase,procps,ubuntu-keyring" +
			" --keyring=" + keyring + hook + " noble " + generation.Path + " http://ubuntu.example/ubuntu\n"
		if got := read(t, calls); !strings.Contains(got, want) {
			t.Errorf("called\n%s\nnot%s", got, want)
		}
		if got := read(t, filepath.Join(generation.Path, "etc/apt/trusted.gpg.d/nspawn-runner.gpg")); got != "keys" {
			t.Errorf("apt in the image trusts %q", got)
		}
	}
	o.Keyring += ".missing"
	if _, err := s.Create(t.Context(), "new", CreateOptions{Bootstrap: o}); err == nil || !strings.Contains(err.Error(), "keyring: open "+o.Keyring) {
		t.Errorf("without the keyring: %v", err)
	}
	wantNothing(t, s, "new")
}

func TestSuiteIsUnstableWhereNobodyNamesOne(t *testing.T) {
	s, calls := fakeStore(t)
	generation, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, calls); !strings.Contains(got, " unstable "+generation.Path+"\n") {
		t.Errorf("called %s", got)
	}
}

func TestDebootstrapIsUsedWhereThereIsNoMmdebstrap(t *testing.T) {
	s, calls := fakeStore(t)
	bin := filepath.Dir(calls)
	if err := os.Rename(filepath.Join(bin, "mmdebstrap"), filepath.Join(bin, "debootstrap")); err != nil {
		t.Fatal(err)
	}
	// Only what the fakes need: the host may have an mmdebstrap.
	for _, program := range []string{"mkdir", "ln", "chmod"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		symlink(t, path, filepath.Join(bin, program))
	}
	t.Setenv("PATH", bin)
	t.Setenv("FAKE_APT_CONFIG", `Acquire::Check-Valid-Until "false";`)
	var steps []string
	s.Progress = told(&steps)
	generation := create(t, s, "sid")
	if steps[0] != "bootstrap trixie with debootstrap" {
		t.Errorf("steps are %q", steps)
	}
	if got := read(t, filepath.Join(generation.Path, "etc/apt/apt.conf.d/99debootstrap")); got != "Acquire::Check-Valid-Until \"false\";\n" {
		t.Errorf("the host's exceptions are %q", got)
	}
	if err := os.Remove(filepath.Join(bin, "debootstrap")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "trixie", CreateOptions{}); err == nil || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("without any: %v", err)
	}
}

func TestMirrorThatStandsStillIsUsedAsTheHostDoes(t *testing.T) {
	s, calls := fakeStore(t)
	t.Setenv("FAKE_APT_CONFIG", `Acquire::Check-Valid-Until "false";
Acquire::Check-Date "true";
Acquire::http::Proxy "secret";`)
	create(t, s, "sid")
	if got := read(t, calls); !strings.Contains(got, `procps --aptopt=Acquire::Check-Valid-Until "false"`+mergedUsr+" trixie ") {
		t.Errorf("called %s", got)
	}
}

func TestCreateOfAnExistingImageFails(t *testing.T) {
	s, _ := fakeStore(t)
	generation := create(t, s, "sid")
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || err.Error() != "image sid: "+s.StateDir+"/sid exists already; chroot-maintenance updates it" {
		t.Errorf("error is %v", err)
	}
	wantOnly(t, s, "sid", generation)
}

func TestFailedBootstrapLeavesOnlyItsLog(t *testing.T) {
	s, calls := fakeStore(t)
	bin := filepath.Dir(calls)
	if err := os.Rename(filepath.Join(bin, "mmdebstrap"), filepath.Join(bin, "debootstrap")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_BOOTSTRAP", `echo "E: no such package" >&2; mkdir "$root/debootstrap"; echo details > "$root/debootstrap/debootstrap.log"; chattr +i "$root/etc/hostname"; exit 7`)
	_, err := s.Create(t.Context(), "sid", CreateOptions{Bootstrap: debian.Bootstrap{Program: "debootstrap"}})
	var step *build.StepError
	if !errors.As(err, &step) {
		t.Fatalf("error is %v", err)
	}
	if want := "image sid: bootstrap unstable with debootstrap: exit status 7: E: no such package (full log: " + step.Log + ")"; err.Error() != want {
		t.Errorf("error is\n%v\nnot\n%s", err, want)
	}
	if log := read(t, step.Log); !strings.Contains(log, "I: it goes well\n") || !strings.Contains(log, "\ndetails\n") {
		t.Errorf("the log is %s", log)
	}
	wantNothing(t, s, "sid")
}

func TestBrokenImageIsNotPublished(t *testing.T) {
	s, _ := fakeStore(t)
	t.Setenv("FAKE_BOOTSTRAP", `rm "$root/usr/bin/bash"`)
	if _, err := s.Create(t.Context(), "sid", CreateOptions{}); err == nil || !strings.Contains(err.Error(), "no shell (/bin/bash)") {
		t.Errorf("error is %v", err)
	}
	wantFailed(t, s, "sid")
}

func TestMaintainWorksOnACopy(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- hosts: all\n  fake: echo again >> $1/etc/runs\n")
	first, _, err := s.Maintain(t.Context(), "sid", ofSid) // there is none: it is created
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := s.Maintain(t.Context(), "sid", ofSid)
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, s, "sid", first, second)
	if got := read(t, filepath.Join(first.Path, "etc/runs")); got != "again\n" {
		t.Errorf("the first generation was written to: %q", got)
	}
	if got := read(t, filepath.Join(second.Path, "etc/runs")); got != "again\nagain\n" {
		t.Errorf("the second generation is no copy of the first: %q", got)
	}

	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: all\n  fake: exit 1\n")
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); err == nil {
		t.Error("a failing playbook was published")
	}
	wantOnly(t, s, "sid", first, second)

	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: all\n  fake: echo new >> $1/etc/runs\n")
	third, _, err := s.Maintain(t.Context(), "sid", MaintainOptions{Bootstrap: ofSid.Bootstrap, Recreate: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(third.Path, "etc/runs")); got != "new\n" {
		t.Errorf("it was not built from scratch: %q", got)
	}
	if got := strings.Count(read(t, calls), "\nmmdebstrap "); got != 2 {
		t.Errorf("bootstrapped %d times", got)
	}
}

func TestMaintainNeedsAPlaybookAndForANewImageASuite(t *testing.T) {
	s, _ := fakeStore(t, "new", "- hosts: all\n  fake: true\n")
	create(t, s, "sid")
	for name, want := range map[string]string{"sid": "no playbook in", "new": "nspawn_runner_chroot_suite is missing", "none": "there is no such image"} {
		if _, _, err := s.Maintain(t.Context(), name, MaintainOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantNothing(t, s, "new")
}

func TestEditPublishesOrThrowsAway(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	edit := func(result error) (Generation, error) {
		return s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error {
			write(t, filepath.Join(root, "etc/edited"), "by hand")
			return result
		})
	}
	no := errors.New("no")
	if _, err := edit(no); !errors.Is(err, no) {
		t.Errorf("error is %v", err)
	}
	wantOnly(t, s, "sid", first)
	second, err := edit(nil)
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, s, "sid", first, second)
	if exists(filepath.Join(first.Path, "etc/edited")) || !exists(filepath.Join(second.Path, "etc/edited")) {
		t.Error("it was not a copy that was edited")
	}
	var unknown *UnknownError
	if _, err := s.Edit(t.Context(), "si", nil); !errors.As(err, &unknown) {
		t.Errorf("error is %v", err)
	}
}

func TestShellRunsOnTheCopy(t *testing.T) {
	s, calls := fakeStore(t)
	create(t, s, "sid")
	write(t, filepath.Join(filepath.Dir(calls), "systemd-nspawn"), "#!/bin/sh\necho \"$*\"\ncat\nexit 3\n")
	var out bytes.Buffer
	_, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error {
		return s.Shell(ctx, root, strings.NewReader("typed\n"), &out, &out)
	})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("error is %v", err)
	}
	for _, want := range []string{"--machine=build-sid ", "--console=pipe", "--setenv=http_proxy=proxy.example:3128", "\ntyped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it printed %s, without %s", out.String(), want)
		}
	}
}

func TestUmaskDoesNotReachTheImage(t *testing.T) {
	s, _ := fakeStore(t)
	defer syscall.Umask(syscall.Umask(0o077))
	generation := create(t, s, "sid")
	for path, mode := range map[string]fs.FileMode{"": 0o755, "etc/hostname": 0o644, "etc/machine-id": 0o444} {
		if info, err := os.Stat(filepath.Join(generation.Path, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode of /%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestEachImageHasABoxNameOfItsOwn(t *testing.T) {
	long := strings.Repeat("x", 60)
	images := map[string]string{}
	for _, image := range []string{"a-b", "a.b", "a_b", "a+b", "a-b-", "+", "localhost", long, long + "yy", long + "yz", long + ".yz"} {
		name := boxName(image)
		if other, taken := images[name]; taken {
			t.Errorf("%s and %s have one: %s", image, other, name)
		}
		images[name] = image
		if !regexp.MustCompile(`^build-[A-Za-z0-9-]{0,57}[A-Za-z0-9]$`).MatchString(name) {
			t.Errorf("%s: %s", image, name)
		}
	}
}
