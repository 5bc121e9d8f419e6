package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeStore is a store whose builds run fakes. Its playbooks are given as
// name and text in turn.
func fakeStore(t *testing.T, playbooks ...string) (s *Store, calls string) {
	calls = fakePrograms(t)
	dir := t.TempDir()
	s = &Store{
		StateDir:     filepath.Join(dir, "state"),
		PlaybookDirs: []string{filepath.Join(dir, "etc")},
		Environment:  map[string]string{"http_proxy": "proxy.example:3128"},
	}
	for i := 0; i < len(playbooks); i += 2 {
		write(t, filepath.Join(dir, "etc", playbooks[i]+".yaml"), playbooks[i+1])
	}
	return s, calls
}

// told collects the steps and notes of builds.
func told(lines *[]string) func(Event) {
	var mu sync.Mutex
	return func(event Event) {
		mu.Lock()
		defer mu.Unlock()
		if event.Packages == nil {
			*lines = append(*lines, event.Step+event.Note)
		}
	}
}

// ofSid is a maintenance of an image whose playbook names a suite.
var ofSid = MaintainOptions{Bootstrap: Bootstrap{Suite: "sid"}}

func create(t *testing.T, s *Store, name string) Generation {
	t.Helper()
	generation, err := s.Create(t.Context(), name, CreateOptions{Bootstrap: Bootstrap{Suite: "trixie"}})
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// wantNothing checks that an image has no chroot and left nothing but its logs.
func wantNothing(t *testing.T, s *Store, name string) {
	t.Helper()
	for _, path := range []string{filepath.Join(s.StateDir, name), s.generations(name)} {
		if exists(path) {
			t.Errorf("%s is there", path)
		}
	}
}

// wantOnly checks which generations an image has, and that nothing is half-made.
// A failed tree may lie beside them.
func wantOnly(t *testing.T, s *Store, name string, generations ...Generation) {
	t.Helper()
	var want []string
	for _, generation := range generations {
		want = append(want, filepath.Base(generation.Name))
	}
	entries, err := os.ReadDir(s.generations(name))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		if !slices.Contains([]string{".build", ".hold", ".failed"}, entry.Name()) && filepath.Ext(entry.Name()) != recordSuffix {
			got = append(got, entry.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("generations are %q, not %q", got, want)
	}
	if current, err := s.Current(name); err != nil || current != generations[len(generations)-1] {
		t.Errorf("current is %v, %v; not %v", current, err, generations[len(generations)-1])
	}
}

func TestCreatePublishesATreeThatForgotItsHost(t *testing.T) {
	s, calls := fakeStore(t)
	var steps []string
	s.Progress = told(&steps)
	generation := create(t, s, "my_image")

	want := "eatmydata mmdebstrap --variant=minbase --components=main --include=git,dbus,systemd,python3,ca-certificates,systemd-sysv,netbase,procps trixie " + generation.Path + "\n"
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
	o := Bootstrap{
		Suite: "noble", Mirror: "http://ubuntu.example/ubuntu", Components: []string{"main", "universe"},
		Keyring: keyring, Include: []string{"ubuntu-keyring"}, Variant: "buildd",
	}
	for _, o.Program = range []string{"mmdebstrap", "debootstrap"} {
		generation, err := s.Create(t.Context(), o.Program, CreateOptions{Bootstrap: o})
		if err != nil {
			t.Fatal(err)
		}
		want := "\n" + o.Program + " --variant=buildd --components=main,universe --include=git,dbus,systemd,python3,ca-certificates,systemd-sysv,netbase,procps,ubuntu-keyring" +
			" --keyring=" + keyring + " noble " + generation.Path + " http://ubuntu.example/ubuntu\n"
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
	if got := read(t, calls); !strings.Contains(got, `procps --aptopt=Acquire::Check-Valid-Until "false" trixie `) {
		t.Errorf("called %s", got)
	}
}

func TestCreateOfAnExistingImageFails(t *testing.T) {
	s, _ := fakeStore(t)
	generation := create(t, s, "sid")
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || err.Error() != "image sid: "+s.StateDir+"/sid exists already" {
		t.Errorf("error is %v", err)
	}
	wantOnly(t, s, "sid", generation)
}

func TestFailedBootstrapLeavesOnlyItsLog(t *testing.T) {
	s, _ := fakeStore(t)
	t.Setenv("FAKE_BOOTSTRAP", `echo "E: no such package" >&2; mkdir "$root/debootstrap"; echo details > "$root/debootstrap/debootstrap.log"; chattr +i "$root/etc/hostname"; exit 7`)
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	var step *StepError
	if !errors.As(err, &step) {
		t.Fatalf("error is %v", err)
	}
	if want := "image sid: bootstrap unstable with mmdebstrap: exit status 7: E: no such package (full log: " + step.Log + ")"; err.Error() != want {
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

func TestCancelEndsAllThatABuildStarted(t *testing.T) {
	s, _ := fakeStore(t, "slow", "- fake: sleep 987654\n")
	t.Setenv("FAKE_BOOTSTRAP", `[ "$FAKE_SLOW" = no ] || { setsid sleep 987654 & sleep 987654; }`)
	for _, slow := range []string{"yes", "no"} { // in the bootstrap, in the playbook
		t.Setenv("FAKE_SLOW", slow)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("a signal came")
		sleeping := make(chan bool, 1)
		go func() {
			sleeping <- eventually(func() bool { return running("sleep 987654") })
			cancel(why)
		}()
		_, err := s.Create(ctx, "slow", CreateOptions{})
		if !errors.Is(err, why) {
			t.Errorf("error is %v", err)
		}
		if !<-sleeping || !eventually(func() bool { return !running("sleep 987654") }) {
			t.Error("its programs were not started, or they still run")
		}
		wantNothing(t, s, "slow")
	}
}

// createForever is what the test binary does for the next test.
func createForever() {
	s := &Store{StateDir: os.Getenv("TEST_CREATE")}
	_, _ = s.Create(context.Background(), "sid", CreateOptions{})
}

func TestKilledBuildIsCollectedByTheNext(t *testing.T) {
	s, _ := fakeStore(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TEST_CREATE="+s.StateDir, "FAKE_BOOTSTRAP=setsid sleep 876543 & sleep 876543")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !eventually(func() bool { return running("sleep 876543") }) {
		t.Error("the build did not start")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !eventually(func() bool { return !running("sleep 876543") }) {
		t.Error("its programs still run")
	}
	if images, err := s.List(); err != nil || len(images) != 0 {
		t.Errorf("half an image is listed: %v, %v", images, err)
	}
	wantOnly(t, s, "sid", create(t, s, "sid"))
}

// running says whether a process has this command line.
func running(command string) bool {
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		text, _ := os.ReadFile(path)
		if strings.Join(strings.Split(strings.Trim(string(text), "\x00"), "\x00"), " ") == command {
			return true
		}
	}
	return false
}

func eventually(condition func() bool) bool {
	for range 500 {
		if condition() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func TestPlaybookRunsInABox(t *testing.T) {
	s, calls := fakeStore(t, "sid", `- fake: |
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
	s, _ := fakeStore(t, "sid", "- fake: exit 3\n")
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if want := `/sid.yaml: task "fake": first; ...; third; fourth; fifth (full log: `; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, without %s", err, want)
	}
	wantFailed(t, s, "sid")
}

func TestPlaybookWithoutAnsibleFailsAtOnce(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- fake: true\n")
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
	s, calls := fakeStore(t, "sid", "- fake: true\n")
	write(t, filepath.Join(filepath.Dir(calls), "systemd-nspawn"), "#!/bin/sh\necho no such thing here >&2\nexit 5\n")
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "systemd-nspawn: exit status 5: no such thing here") {
		t.Errorf("error is %v", err)
	}
	wantNothing(t, s, "sid")
}

func TestMaintainWorksOnACopy(t *testing.T) {
	s, calls := fakeStore(t, "sid", "- fake: echo again >> $1/etc/runs\n")
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

	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- fake: exit 1\n")
	if _, _, err := s.Maintain(t.Context(), "sid", ofSid); err == nil {
		t.Error("a failing playbook was published")
	}
	wantOnly(t, s, "sid", first, second)

	write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- fake: echo new >> $1/etc/runs\n")
	third, _, err := s.Maintain(t.Context(), "sid", MaintainOptions{Bootstrap: ofSid.Bootstrap, Recreate: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(third.Path, "etc/runs")); got != "new\n" {
		t.Errorf("it was not built from scratch: %q", got)
	}
	if got := strings.Count(read(t, calls), "eatmydata"); got != 2 {
		t.Errorf("bootstrapped %d times", got)
	}
}

func TestMaintainNeedsAPlaybookAndForANewImageASuite(t *testing.T) {
	s, _ := fakeStore(t, "new", "- fake: true\n")
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

func TestOneBuildOfAnImageAtATime(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	var steps []string
	s.Progress = told(&steps)
	editing, done := make(chan bool), make(chan error)
	go func() {
		_, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error {
			editing <- true
			<-editing
			write(t, filepath.Join(root, "etc/one"), "")
			return nil
		})
		done <- err
	}()
	<-editing
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Edit(ctx, "sid", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second build did not wait: %v", err)
	}
	if !slices.ContainsFunc(steps, func(step string) bool { return strings.HasPrefix(step, "wait for a build by process ") }) {
		t.Errorf("steps are %q", steps)
	}
	if current, release, err := s.Hold(t.Context(), "sid"); err != nil || current != first {
		t.Errorf("a job has to wait for a build: %v, %v", current, err)
	} else {
		release()
	}
	editing <- true
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	last, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
	if err != nil || !exists(filepath.Join(last.Path, "etc/one")) {
		t.Errorf("the next build does not go on from it: %v", err)
	}
}

func TestOfManyCreationsOneWins(t *testing.T) {
	s, _ := fakeStore(t)
	errs := make(chan error)
	for range 5 {
		go func() {
			_, err := s.Create(t.Context(), "sid", CreateOptions{})
			errs <- err
		}()
	}
	won := 0
	for range 5 {
		if err := <-errs; err == nil {
			won++
		} else if !strings.Contains(err.Error(), "exists already") {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d creations of one image succeeded", won)
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
