package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain gives the hosts of these tests, and of the processes they start, a
// name that no other host on this machine has.
func TestMain(m *testing.M) {
	if os.Getenv(prefixVariable) == "" {
		os.Setenv(prefixVariable, fmt.Sprintf("nspawn-runner-test-%d-", os.Getpid()))
	}
	sitePrefix = os.Getenv(prefixVariable)
	m.Run()
}

const prefixVariable = "HARNESS_TEST_PREFIX"

// needs skips a test where a host cannot be booted.
func needs(t *testing.T, packages []string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can boot a host")
	}
	for _, p := range packages {
		if !installed(p) {
			t.Skipf("the Debian package %s is not installed", p)
		}
	}
}

// startLab boots a lab that the end of the test stops.
func startLab(ctx context.Context, t *testing.T, o LabOptions) *Lab {
	t.Helper()
	needs(t, LabPackages)
	o.Out = t.Output()
	lab, err := StartLab(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Stop(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func TestACommandInALabHasItsOutputAndExitStatus(t *testing.T) {
	lab := startLab(t.Context(), t, LabOptions{})
	out, err := lab.Command(t.Context(), "sh", "-c", "systemctl is-system-running; pwd; echo $PATH; cat /proc/self/cgroup; exit 7").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the command ended with %v, want exit status 7", err)
	}
	for _, want := range []string{"running\n/\n/usr/local/sbin:", "\n0::/commands\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

func TestALabSeesWhatIsBound(t *testing.T) {
	dir := t.TempDir()
	lab := startLab(t.Context(), t, LabOptions{
		Binds:    map[string]string{dir: "/srv/a:b"},
		ReadOnly: map[string]string{"/usr/share/doc": "/doc"},
	})
	run(t, lab, "echo hello >/srv/a:b/file; ! touch /doc/file 2>/dev/null")
	if content, _ := os.ReadFile(filepath.Join(dir, "file")); string(content) != "hello\n" {
		t.Errorf("the bound directory holds %q", content)
	}
}

func TestACancelledCommandEndsWithItsChildrenAndNotTheLab(t *testing.T) {
	lab := startLab(t.Context(), t, LabOptions{})
	for _, wait := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 100 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		command := lab.Command(ctx, "sh", "-c", "sleep 1000 & sleep 1000")
		var out bytes.Buffer // whose pipe the children hold
		command.Stdout = &out
		if err := command.Run(); !errors.Is(err, context.DeadlineExceeded) && command.ProcessState.Success() {
			t.Errorf("the command ended with %v", err)
		}
		cancel()
		if pids := processes(lab.commands()); len(pids) != 0 {
			t.Errorf("after %v, processes are left: %v", wait, pids)
		}
	}
	run(t, lab, "systemctl is-system-running")
}

func TestMachinesBootInALab(t *testing.T) {
	needs(t, LabPackages)
	base, err := Tree(t.Context(), t.Output(), BaseTree)
	if err != nil {
		t.Fatal(err)
	}
	lab := startLab(t.Context(), t, LabOptions{ReadOnly: map[string]string{base: "/base"}})
	run(t, lab, `
		systemd-run --quiet --unit=m --property=Type=notify --property=Delegate=yes --property=KillMode=mixed \
			systemd-nspawn --quiet --keep-unit --machine=m --directory=/base --volatile=overlay \
			--boot --notify-ready=yes
		machinectl show m --property=Class
		systemctl -M m is-system-running --wait
		systemctl stop m`)
}

func TestLabsRunSideBySide(t *testing.T) {
	one, other := startLab(t.Context(), t, LabOptions{}), startLab(t.Context(), t, LabOptions{})
	run(t, one, "touch /etc/mine /lab/mine")
	run(t, other, "! test -e /etc/mine && ! test -e /lab/mine")
	if err := one.Stop(); err != nil {
		t.Error(err)
	}
	run(t, other, "systemctl is-system-running")
}

func TestAStoppedLabLeavesNothing(t *testing.T) {
	needs(t, LabPackages)
	lab := startLab(t.Context(), t, LabOptions{})
	litter(t, lab)
	if err := lab.Stop(); err != nil {
		t.Error(err)
	}
	gone(t)
}

func TestACancelledContextStopsTheLab(t *testing.T) {
	needs(t, LabPackages)
	ctx, cancel := context.WithCancel(t.Context())
	lab := startLab(ctx, t, LabOptions{})
	litter(t, lab)
	command := lab.Command(t.Context(), "sleep", "1000")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := command.Wait(); err == nil {
		t.Error("a command outlived its lab")
	}
	if err := lab.Stop(); err != nil {
		t.Error(err)
	}
	gone(t)
}

func TestAContextCancelledDuringTheBootLeavesNothing(t *testing.T) {
	needs(t, LabPackages)
	if _, err := Tree(t.Context(), t.Output(), LabTree); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan error, 1)
	go func() {
		lab, err := StartLab(ctx, LabOptions{})
		if err == nil {
			_ = lab.Stop()
		}
		started <- err
	}()
	eventually(t, "no lab begins to boot", func() bool { return strings.Contains(traces(t), "/cmdline") })
	cancel()
	if err := <-started; !errors.Is(err, context.Canceled) {
		t.Errorf("starting a lab ended with %v", err)
	}
	gone(t)
}

// TestALabDiesWithItsProcess starts a lab in a second process, this test
// itself, and kills that.
func TestALabDiesWithItsProcess(t *testing.T) {
	if os.Getenv("HARNESS_TEST_CHILD") != "" {
		lab := startLab(t.Context(), t, LabOptions{})
		litter(t, lab)
		os.Stderr.WriteString("up\n")
		select {}
	}
	needs(t, LabPackages)
	child := exec.Command(os.Args[0], "-test.run=^TestALabDiesWithItsProcess$")
	child.Env = append(os.Environ(), "HARNESS_TEST_CHILD=1")
	said, err := child.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 3)
	_, err = io.ReadFull(said, line)
	_ = child.Process.Kill()
	_ = child.Wait()
	if err != nil {
		t.Fatal("the second process started no lab")
	}
	// The processes are gone by themselves; the next lab clears the rest.
	eventually(t, "the dead process's lab still runs", func() bool {
		return !strings.Contains(traces(t), "/cmdline")
	})
	if err := startLab(t.Context(), t, LabOptions{}).Stop(); err != nil {
		t.Error(err)
	}
	gone(t)
}

// run runs a shell script in a lab; each of its commands must succeed.
func run(t *testing.T, lab *Lab, script string) {
	t.Helper()
	if out, err := lab.Command(t.Context(), "sh", "-e", "-c", script).CombinedOutput(); err != nil {
		t.Errorf("in the lab: %v\n%s", err, out)
	}
}

// litter leaves in a lab what is hard to remove: a process outside of its
// systemd's reach, nested groups, a mounted loop device, another that nobody
// uses, an immutable file.
func litter(t *testing.T, lab *Lab) {
	t.Helper()
	run(t, lab, `
		mkdir -p /sys/fs/cgroup/commands/a/b
		setsid sleep 1000 >/dev/null 2>&1 &
		cd /lab
		truncate -s 200M `+sitePrefix+`one `+sitePrefix+`two
		mkfs.btrfs -q `+sitePrefix+`one
		mkdir mnt
		mount -o loop `+sitePrefix+`one mnt
		losetup -f `+sitePrefix+`two
		touch fixed
		chattr +i fixed`)
	if found := traces(t); !strings.Contains(found, "loop") || !strings.Contains(found, "cgroup") {
		t.Errorf("the traces of a running lab are only\n%s", found)
	}
}

// traces is all that the hosts of these tests have on this machine, a line
// each: processes, mounts, loop devices, control groups, files.
func traces(t *testing.T) string {
	t.Helper()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	mentions := func(pattern string) {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			content, _ := os.ReadFile(f)
			for line := range bytes.Lines(content) {
				if bytes.Contains(line, []byte(sitePrefix)) {
					found = append(found, fmt.Sprintf("%s: %q", f, line))
				}
			}
		}
	}
	mentions("/proc/[0-9]*/cmdline")
	mentions("/proc/self/mountinfo")
	mentions("/sys/block/loop*/loop/backing_file")
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, sitePrefix) {
			found = append(found, path)
		}
		return nil
	})
	for _, pattern := range []string{filepath.Join(cache, "hosts", "*"), "/run/systemd/nspawn/*/*", "/tmp/*"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			if strings.Contains(f, sitePrefix) {
				found = append(found, f)
			}
		}
	}
	return strings.Join(found, "\n")
}

// gone checks that nothing is left of this test's hosts.
func gone(t *testing.T) {
	t.Helper()
	if left := traces(t); left != "" {
		t.Errorf("these are left:\n%s", left)
	}
}

// eventually waits for what the kernel does in its own time.
func eventually(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for range 6000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(otherwise)
}

func TestAVMGoesOnAfterAPowerCut(t *testing.T) {
	needsVM(t)
	dir := t.TempDir()
	o := VMOptions{
		Root:  filepath.Join(dir, "root.qcow2"),
		Disks: []Disk{{Path: filepath.Join(dir, "state.img"), Label: "state", FS: "ext4", Size: 1 << 30, Mount: "/state"}},
		Out:   t.Output(),
	}
	first := o
	first.Command = []string{"sh", "-c", "echo kept | tee /state/file >/etc/file; sync; echo now; echo later; sleep 1000"}
	first.CutPower, first.CutDelay = "now", 2*time.Second
	var said bytes.Buffer
	first.Output = &said
	if _, err := RunVM(t.Context(), first); !errors.Is(err, ErrPowerCut) {
		t.Fatalf("without power the VM ended with %v", err)
	}
	if said.String() != "now\nlater\n" {
		t.Errorf("until then it said %q", said.String())
	}
	status, out, err := runVM(t, o, "cat /state/file /etc/file")
	if err != nil || status != 0 || out != "kept\nkept\n" {
		t.Errorf("after the power cut the VM ended with %d, %v, %q", status, err, out)
	}
	gone(t)
}

func TestACancelledContextEndsTheVM(t *testing.T) {
	needsVM(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	vm, err := startVM(ctx, VMOptions{Command: []string{"sleep", "1000"}, Out: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := vm.wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("the VM ended with %v", err)
	}
	gone(t)
}

func TestAVMThatTakesTooLongIsEnded(t *testing.T) {
	needsVM(t)
	_, err := RunVM(t.Context(), VMOptions{Command: []string{"sleep", "1000"}, Limit: 5 * time.Second, Out: t.Output()})
	if err == nil || !strings.Contains(err.Error(), "its limit of 5s is over\n") {
		t.Errorf("the VM ended with %v", err)
	}
	gone(t)
}

// needsVM skips a test where a VM cannot be booted, or not be waited for.
func needsVM(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a VM takes half a minute")
	}
	needs(t, VMPackages)
}

// runVM runs a shell script in a VM, and is its exit status and what it
// printed.
func runVM(t *testing.T, o VMOptions, script string) (int, string, error) {
	t.Helper()
	needsVM(t)
	var out bytes.Buffer
	o.Command = []string{"sh", "-c", script}
	o.Output, o.Out = io.MultiWriter(&out, t.Output()), t.Output()
	status, err := RunVM(t.Context(), o)
	return status, out.String(), err
}

func TestACommandInAVMHasItsOutputFilesDisksAndExitStatus(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "it's"), []byte("#!/bin/sh\necho carried in\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	journal := t.TempDir()
	status, out, err := runVM(t, VMOptions{
		Files: map[string]string{"/opt/files": dir},
		Disks: []Disk{
			{Label: "base", FS: "ext4", Size: 100 << 20, From: dir, Mount: "/base", ReadOnly: true},
			{Label: "state", FS: "btrfs", Size: 1 << 30, Mount: "/state"},
		},
		Journal: journal,
	}, `systemctl is-system-running --wait
		"/opt/files/it's"
		"/base/it's"
		touch /base/x 2>&1
		btrfs subvolume create /state/x
		cat /sys/fs/cgroup/cgroup.controllers
		systemd-analyze
		systemd-analyze blame | head -20
		cat /proc/uptime
		exit 7`)
	if err != nil || status != 7 {
		t.Errorf("the command ended with %d, %v", status, err)
	}
	for _, want := range []string{"running\n", "carried in\ncarried in\n", "Read-only file system", "Create subvolume '/state/x'", " memory "} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(journal, "*/log/journal/*/*.journal")); len(found) == 0 {
		t.Error("no journal was stored")
	}
}
